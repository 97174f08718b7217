"""What a test heard of a chat model: everything up to the end, or up to the error."""

from contextlib import aclosing
from dataclasses import dataclass, field

from chatassist.domain.errors import ChatAssistError
from chatassist.domain.model import Prompt, Role, Utterance
from chatassist.domain.ports.llm import ChatModel, Chunk
from chatassist.domain.turns import FinishReason, Usage


@dataclass(slots=True)
class Heard:
    chunks: list[Chunk] = field(default_factory=list)
    error: ChatAssistError | None = None

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def finish(self) -> FinishReason | None:
        return self.chunks[-1].finish_reason if self.chunks else None

    @property
    def usage(self) -> Usage | None:
        return self.chunks[-1].usage


def asking(*texts: str, model: str | None = None) -> Prompt:
    """A prompt of these texts, user and assistant in turns; the user is first and last."""
    roles = (Role.USER, Role.ASSISTANT)
    said = [Utterance(role=roles[place % 2], content=text) for place, text in enumerate(texts or ("hi",))]
    return Prompt(utterances=said, model=model)


async def hear(model: ChatModel, prompt: Prompt | None = None) -> Heard:
    heard = Heard()
    try:
        async with aclosing(model.stream(prompt or asking())) as chunks:
            async for chunk in chunks:
                heard.chunks.append(chunk)
    except ChatAssistError as error:
        heard.error = error
    return heard
