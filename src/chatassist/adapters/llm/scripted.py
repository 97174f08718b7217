"""The chat model that needs no vendor: it says honestly that none is configured, or plays what a test gives it."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from chatassist.domain.model import Prompt, Role
from chatassist.domain.ports.llm import ChatModel, Chunk
from chatassist.domain.turns import FinishReason

MODEL = "scripted"
_PIECE = 8  # characters
_ANSWER = (
    "目前还没有接入任何 AI 服务商，这段文字是程序自带的固定回复，不是 AI 生成的。"
    "本次对话里，我看到了 {count} 条消息。"
    "要得到真正的回答，请设置 CHATASSIST_LLM__VENDOR、CHATASSIST_LLM__API_KEY 和 CHATASSIST_LLM__MODEL"
    " 这三个环境变量，然后重新启动服务。"
)

Script = Callable[[Prompt], AsyncGenerator[Chunk, None]]
Step = str | Chunk | Exception | asyncio.Event


class ScriptedChatModel(ChatModel):
    """Follows a script; without one it tells how to configure a vendor."""

    def __init__(self, script: Script | None = None) -> None:
        self._script = script or _unconfigured

    def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        """Yield what the script says; see ChatModel."""
        return self._script(prompt)


def plays(*steps: Step) -> Script:
    """Return a script that says each text, yields each chunk, raises each exception and waits for each event.

    It ends with finish reason `stop` unless the last step is a chunk with a reason of its own.
    """

    async def script(_: Prompt) -> AsyncGenerator[Chunk, None]:
        for step in steps:
            match step:
                case asyncio.Event():
                    await step.wait()
                case Exception():
                    raise step
                case str():
                    yield Chunk(text=step)
                case Chunk():
                    yield step
        if not (steps and isinstance(steps[-1], Chunk) and steps[-1].finish_reason):
            yield Chunk(finish_reason=FinishReason.STOP, model=MODEL)

    return script


async def _unconfigured(prompt: Prompt) -> AsyncGenerator[Chunk, None]:
    count = sum(said.role is not Role.SYSTEM for said in prompt.utterances)
    answer = _ANSWER.format(count=count)
    for start in range(0, len(answer), _PIECE):
        await asyncio.sleep(0)  # others speak too
        yield Chunk(text=answer[start : start + _PIECE], model=MODEL)
    yield Chunk(finish_reason=FinishReason.STOP, model=MODEL)
