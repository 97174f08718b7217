"""What an operator is told about an installation: checks, each with an end of its own, and what they find.

Speaks to ports alone. What a setting is called is not known here: who composes the checks gives the remedies.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum

from chatassist.domain.audio import SAMPLE_RATE, Sound
from chatassist.domain.errors import (
    AudioUnsupported,
    ChatAssistError,
    LlmOverloaded,
    LoginCodeInvalid,
    WeChatRateLimited,
)
from chatassist.domain.model import Prompt, Role, Utterance
from chatassist.domain.ports.asr import Transcriber
from chatassist.domain.ports.identity import IdentityProvider
from chatassist.domain.ports.llm import ChatModel
from chatassist.domain.ports.tts import Script, Synthesiser
from chatassist.domain.turns import FinishReason

_GRACE = 1.0  # seconds that a check gets to clean up after its time is over
# No fault of the installation: it passes by itself, or the engine wants to hear more than silence.
_MILD = (LlmOverloaded, WeChatRateLimited, AudioUnsupported)
_NO_CODE = "doctor-no-login-code-at-all"
_QUESTION = "Answer with the single word: ok"
_GREETING = "你好"
_MODEL_NAME = re.compile(r"[\w.:/@+-]{1,128}")


class Verdict(StrEnum):
    """How it stands; a fault is what keeps the service, or a part of it, from working."""

    OK = "ok"
    WARN = "warn"
    FAULT = "FAULT"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for the operator: in plain words, with what to do, and without any secret or anybody's answer."""

    name: str
    verdict: Verdict
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something to look at. `remedies`: what to do about an error, or TimeoutError; the first that fits is told."""

    name: str
    look: Callable[[], AsyncIterator[tuple[Verdict, str]]]
    remedies: Mapping[type[Exception], str] = field(default_factory=dict)


async def examine(checks: Sequence[Check], *, patience: float) -> AsyncGenerator[Finding, None]:
    """Make all checks at once and yield what they find, in their order; none stops, delays or outlasts the others.

    `patience`: seconds for each.
    """
    running = [asyncio.create_task(_findings(check, patience)) for check in checks]
    try:
        for findings in running:
            for finding in await findings:
                yield finding
    finally:
        for task in running:
            task.cancel()


async def _findings(check: Check, patience: float) -> Sequence[Finding]:
    found: list[Finding] = []

    async def collect() -> None:
        async for verdict, sentence in check.look():
            found.append(Finding(check.name, verdict, sentence))

    looking = asyncio.create_task(collect())
    await asyncio.wait({looking}, timeout=patience)
    if looking.done():
        return [*found, *_told(check, asyncio.CancelledError() if looking.cancelled() else looking.exception())]
    looking.cancel()
    await asyncio.wait({looking}, timeout=_GRACE)
    return [*found, *_told(check, TimeoutError(f"it took more than {patience:g} s"))]


def _told(check: Check, error: BaseException | None) -> Sequence[Finding]:
    """Say what went wrong, in the error's own words only if they are ours."""
    if error is None:
        return ()
    verdict = Verdict.WARN if isinstance(error, _MILD) else Verdict.FAULT
    ours = str(error) if isinstance(error, ChatAssistError | ValueError | TimeoutError) else ""
    what = ours or f"the check itself failed: {type(error).__name__}"
    remedy = next((text for kind, text in check.remedies.items() if isinstance(error, kind)), "")
    return (Finding(check.name, verdict, f"{what[:1].upper()}{what[1:].rstrip('.')}. {remedy}".rstrip()),)


async def look_at_model(model: ChatModel) -> AsyncIterator[tuple[Verdict, str]]:
    """Have it say something. Raises what `ChatModel.stream` does."""
    clock = asyncio.get_running_loop().time
    begun, first, characters, finish, name = clock(), 0.0, 0, None, None
    async with aclosing(model.stream(Prompt(utterances=(Utterance(role=Role.USER, content=_QUESTION),)))) as chunks:
        async for chunk in chunks:
            first = first or (clock() - begun if chunk.text else 0.0)
            characters += len(chunk.text)
            finish, name = chunk.finish_reason or finish, chunk.model or name
    who = f"Model {name}" if name and _MODEL_NAME.fullmatch(name) else "The model"
    if finish is FinishReason.BLOCKED:
        yield Verdict.WARN, f"{who} refuses even the words of this check."
    elif not characters:
        cut = (
            "was cut off before its first word: allow a longer output"
            if finish is FinishReason.LENGTH
            else "said nothing"
        )
        yield Verdict.WARN, f"{who} {cut}."
    else:
        yield (
            Verdict.OK,
            f"{who} answered; first words after {first:.1f} s, all {characters} characters in {clock() - begun:.1f} s.",
        )


async def look_at_identity(identity: IdentityProvider) -> AsyncIterator[tuple[Verdict, str]]:
    """Ask about a code that is none: to be told so means that whoever vouches for people knows us; it spends nothing.

    Raises what `IdentityProvider.identify` does otherwise.
    """
    try:
        await identity.identify(_NO_CODE)
    except LoginCodeInvalid:
        yield Verdict.OK, "WeChat knows this appid and its secret."
    else:
        yield Verdict.WARN, "Who answers vouches for a login code that is none: this is not WeChat."


async def look_at_transcriber(transcriber: Transcriber) -> AsyncIterator[tuple[Verdict, str]]:
    """Have it hear a second of silence. Raises what `Transcriber.transcribe` does."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    await transcriber.transcribe(Sound(samples=bytes(2 * SAMPLE_RATE)))
    yield Verdict.OK, f"A second of silence was transcribed in {clock() - begun:.1f} s."


async def look_at_synthesiser(synthesiser: Synthesiser) -> AsyncIterator[tuple[Verdict, str]]:
    """Have it say two characters. Raises what `Synthesiser.synthesise` does."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    audio = await synthesiser.synthesise(Script(text=_GREETING))
    yield Verdict.OK, f"Two characters were spoken in {clock() - begun:.1f} s: {len(audio.data)} bytes of {audio.kind}."
