"""A chat model for tests of those around it: plays what it is given, one take a call, and notes who asked what."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from chatassist.adapters.llm.scripted import Step, plays
from chatassist.domain.errors import ChatAssistError
from chatassist.domain.model import Prompt, Role, Utterance
from chatassist.domain.ports.llm import ChatModel, Chunk

Take = Step | tuple[Step, ...]


class Takes(ChatModel):
    """Plays its takes in order, and the last one ever after."""

    def __init__(self, *takes: Take) -> None:
        self.takes = takes or ("an answer",)
        self.prompts: list[Prompt] = []
        self.rooms: list[str | None] = []
        self.open = 0
        self.most_open = 0
        self.full = False
        self.closed = False
        self.on_call: Callable[[], None] = lambda: None

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        self.prompts.append(prompt)
        take = self.played[-1]
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self.on_call()
        try:
            async with aclosing(plays(*(take if isinstance(take, tuple) else (take,)))(prompt)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self.open -= 1

    @property
    def calls(self) -> int:
        return len(self.prompts)

    @property
    def played(self) -> list[Take]:
        return [self.takes[min(call, len(self.takes) - 1)] for call in range(self.calls)]

    def room(self, model: str | None) -> float:
        self.rooms.append(model)
        return 0 if self.full else 3

    async def aclose(self) -> None:
        self.closed = True


class HandTime:
    """Seconds that pass when told to, and when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def asking(*texts: str, model: str | None = None, bare: bool = False) -> Prompt:
    """A prompt of these texts, user and assistant in turns; the user is first and last."""
    roles = (Role.USER, Role.ASSISTANT)
    said = tuple(Utterance(role=roles[place % 2], content=text) for place, text in enumerate(texts or ("hi",)))
    return Prompt(utterances=said, model=model, bare=bare)


async def hear(model: ChatModel, prompt: Prompt | None = None) -> str | ChatAssistError:
    """The whole text, or the error."""
    text = ""
    try:
        async with aclosing(model.stream(prompt or asking())) as chunks:
            async for chunk in chunks:
                text += chunk.text
    except ChatAssistError as error:
        return error
    return text
