"""Whisper on this machine: how it is asked, what it is believed, a bounded queue, faults told at the start."""

import asyncio
import subprocess
import sys
import threading
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chatassist.adapters.asr.whisper_local import LocalWhisperTranscriber
from chatassist.domain.audio import Sound
from chatassist.domain.errors import AsrBusy, AsrUnavailable
from chatassist.domain.ports.asr import Hints
from tests.fixtures.service import ROOT
from tests.fixtures.speech import sound_of, spoken


@pytest.fixture
async def whisper(tiny_whisper: Path) -> AsyncIterator[LocalWhisperTranscriber]:
    made = LocalWhisperTranscriber(model=str(tiny_whisper), waiting=2)
    yield made
    await made.aclose()


def speech() -> Sound:
    return sound_of(spoken())


def segment(text: str, **figures: float) -> Any:
    usual = {"start": 0.0, "end": 2.0, "no_speech_prob": 0.05, "avg_logprob": -0.3, "compression_ratio": 1.2}
    return type("Segment", (), {"text": text, **usual, **figures})


class Slow:
    """A model whose segments come one by one, when they are let through."""

    supported_languages = ("en",)

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
                yield segment(f"{initial_prompt}{number} ")

        return work(), type("Info", (), {"language": "zh"})


async def _until(condition: Any) -> None:
    """Wait for what happens in another thread."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_real_speech_is_heard(whisper: LocalWhisperTranscriber) -> None:
    heard = await whisper.transcribe(speech())
    assert heard.text
    assert heard.language


async def test_the_model_is_loaded_once_and_not_before_it_is_needed(whisper: LocalWhisperTranscriber) -> None:
    assert whisper._model is None
    await whisper.transcribe(speech())
    loaded = whisper._model
    await whisper.transcribe(speech())
    assert whisper._model is loaded is not None


async def test_the_queue_is_bounded(whisper: LocalWhisperTranscriber) -> None:
    slow = whisper._model = Slow()
    sound = speech()
    accepted = [asyncio.create_task(whisper.transcribe(sound, Hints(language="en", prompt=name))) for name in "abc"]
    await _until(lambda: slow.begun)
    with pytest.raises(AsrBusy) as caught:
        await whisper.transcribe(sound)
    assert caught.value.retry_after
    slow.gate.release(9)
    assert [heard.text for heard in await asyncio.gather(*accepted)] == ["a0 a1 a2", "b0 b1 b2", "c0 c1 c2"]


async def test_work_given_up_ends_at_its_next_segment_and_what_waited_is_never_begun(
    whisper: LocalWhisperTranscriber,
) -> None:
    slow = whisper._model = Slow()
    sound = speech()
    first, second, third, fourth = (
        asyncio.create_task(whisper.transcribe(sound, Hints(language="en", prompt=name))) for name in "abcd"
    )
    await _until(lambda: slow.begun)
    with pytest.raises(AsrBusy):
        await fourth
    first.cancel()
    second.cancel()
    await asyncio.wait({first, second})
    await _until(lambda: slow.begun == ["a", "c"])
    assert whisper._taken == 2, "the thread still holds the recording of one who left"
    slow.gate.release(4)
    assert (await third).text == "c0 c1 c2", "nothing of the others in it"
    await _until(lambda: whisper._taken == 0)
    assert (slow.begun, slow.segments) == (["a", "c"], 4)


class Asked:
    """A model that notes how it is asked, and hears the lines that it is given."""

    supported_languages = ("zh", "en")

    def __init__(self, *lines: Any) -> None:
        self.lines = lines
        self.sound: Any = None
        self.how: dict[str, Any] = {}

    def transcribe(self, sound: Any, **how: Any) -> Any:
        self.sound, self.how = sound, how
        return iter(self.lines), type("Info", (), {"language": "zh"})


async def test_it_gets_the_samples_and_no_file(whisper: LocalWhisperTranscriber) -> None:
    model = whisper._model = Asked()
    await whisper.transcribe(Sound(samples=array("h", [0, 16_384, -32_768, 32_767]).tobytes()))
    assert model.sound.dtype == "float32"
    assert model.sound.tolist() == [0, 0.5, -1, pytest.approx(1, abs=1e-4)]


@pytest.mark.parametrize(
    ("hints", "prompt"),
    [
        (Hints(), "以下是普通话的句子。"),
        (Hints(language="zh"), "以下是普通话的句子。"),
        (Hints(language="zh", prompt="张三"), "以下是普通话的句子。张三"),
        (Hints(language="en"), None),
        (Hints(language="en", prompt="Zhang San"), "Zhang San"),
    ],
)
async def test_chinese_is_asked_for_in_simplified_characters(
    whisper: LocalWhisperTranscriber, hints: Hints, prompt: str | None
) -> None:
    model = whisper._model = Asked()
    await whisper.transcribe(speech(), hints)
    assert (model.how["initial_prompt"], model.how["language"]) == (prompt, hints.language)
    assert model.how["condition_on_previous_text"] is False


async def test_what_it_cannot_have_heard_is_left_out(whisper: LocalWhisperTranscriber) -> None:
    whisper._model = Asked(
        segment("今天天气很好。"),
        segment("谢谢观看", no_speech_prob=0.9),
        segment("请不吝点赞 订阅 转发 打赏支持明镜与点点栏目", avg_logprob=-0.9),
    )
    assert (await whisper.transcribe(speech())).text == "今天天气很好。"


async def test_a_job_that_is_given_up_while_it_runs_does_not_hold_up_the_next(
    whisper: LocalWhisperTranscriber,
) -> None:
    slow = whisper._model = Slow()
    first = asyncio.create_task(whisper.transcribe(speech(), Hints(language="en", prompt="a")))
    await _until(lambda: slow.begun)
    first.cancel()
    await asyncio.wait({first})
    whisper._model = Asked(segment("the next"))
    assert (await whisper.transcribe(speech())).text == "the next", "while the first is still in its thread"
    slow.gate.release()
    await _until(lambda: whisper._taken == 0)


async def test_it_is_warmed_in_a_thread_and_the_first_recording_waits_for_no_second_model(
    whisper: LocalWhisperTranscriber,
) -> None:
    whisper.warm()
    heard = await whisper.transcribe(speech())
    loaded = whisper._model
    assert heard.text
    await whisper.transcribe(speech())
    assert whisper._model is loaded


async def test_a_model_that_cannot_be_warmed_is_told_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text("nonsense")
    broken = LocalWhisperTranscriber(model=str(tmp_path))
    broken.warm()
    await _until(lambda: "Whisper cannot be loaded" in caplog.messages)
    await broken.aclose()


async def test_a_model_that_cannot_be_loaded_is_told_in_our_words(tmp_path: Path) -> None:
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text("nonsense")
    broken = LocalWhisperTranscriber(model=str(tmp_path))
    with pytest.raises(AsrUnavailable) as caught:
        await broken.transcribe(speech())
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
