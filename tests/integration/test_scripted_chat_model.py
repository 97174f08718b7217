"""The model that needs no vendor: what it says of itself, and the scripts tests give it."""

from chatassist.adapters.llm.scripted import ScriptedChatModel, plays
from chatassist.domain.model import Prompt, Role, Utterance
from chatassist.domain.ports.llm import Chunk
from chatassist.domain.turns import FinishReason


async def answer(model: ScriptedChatModel, *roles: Role) -> list[Chunk]:
    prompt = Prompt(utterances=[Utterance(role=role, content="hi") for role in roles])
    return [chunk async for chunk in model.stream(prompt)]


async def test_it_says_that_no_vendor_is_configured_and_how_to_configure_one() -> None:
    chunks = await answer(ScriptedChatModel(), Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.USER)

    text = "".join(chunk.text for chunk in chunks)
    assert "没有接入任何 AI 服务商" in text
    assert "3 条消息" in text
    assert all(f"CHATASSIST_LLM__{name}" in text for name in ("VENDOR", "API_KEY", "MODEL"))
    assert len(chunks) > 5
    assert chunks[-1] == Chunk(finish_reason=FinishReason.STOP, model="scripted")


async def test_a_script_ends_as_its_last_chunk_says() -> None:
    cut = Chunk(text="b", finish_reason=FinishReason.LENGTH)

    assert await answer(ScriptedChatModel(plays("a", cut)), Role.USER) == [Chunk(text="a"), cut]
