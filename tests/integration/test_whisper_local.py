"""Whisper on this machine: real recordings of every kind, one worker, a bounded queue, faults told at the start."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chatassist.adapters.asr.whisper_local import LocalWhisperTranscriber
from chatassist.adapters.sniff import recognise
from chatassist.domain.audio import Audio, AudioKind
from chatassist.domain.errors import AsrBusy, AsrUnavailable, AudioTooLarge, AudioUnsupported
from chatassist.domain.ports.asr import Hints
from tests.fixtures.service import ROOT
from tests.fixtures.speech import encoded, recording, silence

WAV = AudioKind.WAV


@pytest.fixture
async def whisper(tiny_whisper: Path) -> AsyncIterator[LocalWhisperTranscriber]:
    made = LocalWhisperTranscriber(model=str(tiny_whisper), waiting=2)
    yield made
    await made.aclose()


class Slow:
    """A model whose segments come one by one, when they are let through."""

    supported_languages = ("zh",)

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.begun: list[str] = []
        self.segments = 0

    def transcribe(self, _: Any, *, initial_prompt: str | None, **__: Any) -> Any:
        self.begun.append(initial_prompt or "")

        def work() -> Any:
            for number in range(3):
                assert self.gate.acquire(timeout=5)
                self.segments += 1
                yield type("Segment", (), {"text": f"{initial_prompt}{number} "})

        return work(), type("Info", (), {"language": "zh"})


async def _until(condition: Any) -> None:
    """Wait for what happens in another thread."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("kind", list(AudioKind))
async def test_real_recordings_of_every_kind_are_heard(whisper: LocalWhisperTranscriber, kind: AudioKind) -> None:
    heard = await whisper.transcribe(recognise(recording(kind)))
    assert heard.text
    assert heard.duration == pytest.approx(4.0, abs=1.2)
    assert heard.language


async def test_two_channels_at_another_rate_are_heard(whisper: LocalWhisperTranscriber) -> None:
    assert (await whisper.transcribe(recognise(recording(AudioKind.AAC, layout="stereo")))).text


async def test_the_model_is_loaded_once_and_not_before_it_is_needed(whisper: LocalWhisperTranscriber) -> None:
    assert whisper._model is None
    await whisper.transcribe(recognise(recording(WAV)))
    loaded = whisper._model
    await whisper.transcribe(recognise(recording(WAV)))
    assert whisper._model is loaded is not None


async def test_the_queue_is_bounded(whisper: LocalWhisperTranscriber) -> None:
    slow = whisper._model = Slow()
    audio = recognise(recording(WAV))
    accepted = [asyncio.create_task(whisper.transcribe(audio, Hints(prompt=name))) for name in "abc"]
    await _until(lambda: slow.begun)
    with pytest.raises(AsrBusy) as caught:
        await whisper.transcribe(audio)
    assert caught.value.retry_after
    slow.gate.release(9)
    assert [heard.text for heard in await asyncio.gather(*accepted)] == ["a0 a1 a2", "b0 b1 b2", "c0 c1 c2"]


async def test_work_given_up_ends_at_its_next_segment_and_what_waited_is_never_begun(
    whisper: LocalWhisperTranscriber,
) -> None:
    slow = whisper._model = Slow()
    audio = recognise(recording(WAV))
    first, second, third = (asyncio.create_task(whisper.transcribe(audio, Hints(prompt=name))) for name in "abc")
    await _until(lambda: slow.begun)
    first.cancel()
    second.cancel()
    await asyncio.wait({first, second})
    with pytest.raises(AsrBusy):  # the thread still holds the recordings of those who left
        await whisper.transcribe(audio)
    slow.gate.release(4)
    assert (await third).text == "c0 c1 c2", "nothing of the others in it"
    assert (slow.begun, slow.segments) == (["a", "c"], 4)


@pytest.mark.parametrize(
    "audio",
    [
        Audio(data=b"RIFF\x24\x00\x00\x00WAVEfmt ", kind=WAV),
        Audio(data=recording(WAV)[:44], kind=WAV),
        Audio(data=b"#!AMR\n" + b"\xff" * 500, kind=AudioKind.AMR),
        Audio(data=recording(AudioKind.M4A)[:3000], kind=AudioKind.M4A),
        Audio(data=b"fLaC" + b"\0" * 5000, kind=AudioKind.FLAC),
        Audio(data=b"OggS" + b"\0" * 5000, kind=AudioKind.OGG),
        Audio(data=b"\x1aE\xdf\xa3" + b"\0" * 5000, kind=AudioKind.WEBM),
        Audio(data=recording(AudioKind.MP3), kind=AudioKind.M4A),
    ],
    ids=lambda audio: f"{audio.kind}-{len(audio.data)}",
)
async def test_what_cannot_be_decoded_is_unsupported(whisper: LocalWhisperTranscriber, audio: Audio) -> None:
    with pytest.raises(AudioUnsupported):
        await whisper.transcribe(audio)


async def test_no_file_of_this_machine_is_opened_for_a_recording(
    whisper: LocalWhisperTranscriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "victim.wav").write_bytes(recording(WAV))
    monkeypatch.chdir(tmp_path)
    playlist = b"ffconcat version 1.0\nfile victim.wav\n"
    for kind in AudioKind:
        for data in (playlist, b"ID3\4\0\0\0\0\0\1\0" + playlist):
            with pytest.raises(AudioUnsupported):
                await whisper.transcribe(Audio(data=data, kind=kind))


async def test_a_small_file_that_unpacks_to_hours_is_stopped(whisper: LocalWhisperTranscriber) -> None:
    bomb = encoded(silence(700), AudioKind.FLAC)
    assert len(bomb) < 200_000
    with pytest.raises(AudioTooLarge):
        await whisper.transcribe(recognise(bomb))


async def test_a_model_that_cannot_be_loaded_is_told_in_our_words(tmp_path: Path) -> None:
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text("nonsense")
    broken = LocalWhisperTranscriber(model=str(tmp_path))
    with pytest.raises(AsrUnavailable) as caught:
        await broken.transcribe(recognise(recording(WAV)))
    await broken.aclose()
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("/nowhere/at/all", "neither a directory"),
        ("./models/small", "neither a directory"),
        (".", "lacks model.bin and config.json and tokenizer.json"),
    ],
)
def test_a_model_that_is_not_there_stops_the_start(model: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        LocalWhisperTranscriber(model=model)


async def test_without_the_extra_the_start_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatassist.adapters.asr.whisper_local.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"^faster-whisper is not installed; install chatassist\[whisper\]$"):
        LocalWhisperTranscriber(model="small")


def test_the_service_needs_the_extra_for_nothing_else() -> None:
    code = (
        "import sys\n"
        "for name in ('faster_whisper', 'ctranslate2', 'av', 'numpy', 'onnxruntime'): sys.modules[name] = None\n"
        "import chatassist.container, chatassist.entrypoints.http.app\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "src")})
