"""What stands in front of every engine: what is let through, how it is changed, what is refused, and why."""

import asyncio
import struct
import tracemalloc
from array import array
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chatassist.adapters.asr import gate
from chatassist.adapters.asr.decode import decode
from chatassist.adapters.asr.listening import PyAvListener
from chatassist.adapters.sniff import recognise
from chatassist.domain.audio import SAMPLE_RATE, Audio, AudioKind, Sound
from chatassist.domain.errors import AudioCorrupt, AudioNoSpeech, AudioTooLong, ChatAssistError
from tests.fixtures.recordings import HEARD, PLAYLIST, REFUSED, TAG, Made, at, noise, tone, wav
from tests.fixtures.speech import RATE, encoded, recording, said, silence, sound_of, spoken


@pytest.fixture
async def listener() -> AsyncIterator[PyAvListener]:
    made = PyAvListener(most=60)
    yield made
    await made.aclose()


async def hear(listener: PyAvListener, data: bytes) -> Sound:
    return await listener.listen(recognise(data))


def peak(sound: Sound) -> float:
    samples = array("h", sound.samples)
    return max(abs(sample) for sample in samples) / 32_767


# --- What is let through --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(AudioKind))
async def test_real_speech_in_every_format(listener: PyAvListener, kind: AudioKind) -> None:
    sound = await hear(listener, recording(kind))
    assert sound.seconds == pytest.approx(len(spoken()) / RATE, abs=0.15), "aac and amr put a little in front"
    assert not sound.clipped


@pytest.mark.parametrize("made", HEARD.values(), ids=HEARD)
async def test_speech_with_which_something_is_wrong(listener: PyAvListener, made: Made) -> None:
    assert (await hear(listener, made())).seconds > 1


@pytest.mark.parametrize(
    ("text", "voice"),
    [
        ("今天天气怎么样？", "cmn"),
        ("好", "cmn"),
        ("对", "cmn+f2"),
        ("yes", "en"),
        ("No.", "en+f3"),
    ],
)
async def test_a_single_word_is_enough_and_any_voice(listener: PyAvListener, text: str, voice: str) -> None:
    assert await hear(listener, wav(said(text, voice)))


async def test_a_word_after_ten_silent_seconds_is_found(listener: PyAvListener) -> None:
    import numpy as np

    late = np.concatenate([silence(10), said("yes"), silence(3)])
    assert (await hear(listener, encoded(late, AudioKind.M4A))).seconds > 13


async def test_the_longest_recording_passes_with_what_its_encoder_adds(listener: PyAvListener) -> None:
    import numpy as np

    minute = np.resize(spoken(), 60 * RATE)
    for kind in (AudioKind.AAC, AudioKind.MP3, AudioKind.WAV):
        assert (await hear(listener, encoded(minute, kind))).seconds == pytest.approx(60, abs=0.2)


# --- How it is changed ----------------------------------------------------------------------------------------------


async def test_speech_of_a_usual_level_is_left_as_it_is(listener: PyAvListener) -> None:
    usual = at(-20, spoken())
    usual -= usual.mean()
    usual *= 0.85 / abs(usual).max()
    assert (await hear(listener, wav(usual))).samples == sound_of(usual).samples


@pytest.mark.parametrize(("decibels", "loudest"), [(-35, 0.9), (-45, 0.9), (-65, None)])
async def test_quiet_speech_is_raised_by_26_db_at_most(
    listener: PyAvListener, decibels: float, loudest: float | None
) -> None:
    quiet = at(decibels, spoken())
    sound = await hear(listener, wav(quiet))
    assert peak(sound) == pytest.approx(loudest or 20 * float(abs(quiet).max()), rel=0.1)
    assert sound.seconds == len(quiet) / RATE


@pytest.mark.parametrize("offset", [0.3, -0.3, 0.9])
async def test_what_lies_beside_the_middle_is_put_there(listener: PyAvListener, offset: float) -> None:
    sound = await hear(listener, wav((at(-30, spoken()) + offset).clip(-1, 1)))
    samples = array("h", sound.samples)
    assert abs(sum(samples) / len(samples)) < 33
    assert peak(sound) > 0.5


async def test_too_loud_is_passed_on_and_noted(listener: PyAvListener) -> None:
    assert (await hear(listener, HEARD["clipped"]())).clipped


async def test_the_same_recording_gives_the_same_sound(listener: PyAvListener) -> None:
    data = encoded(at(-45, spoken()), AudioKind.M4A)
    assert await hear(listener, data) == await hear(listener, data)


# --- What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("made", "reason"), REFUSED.values(), ids=REFUSED)
async def test_a_recording_is_refused_for_its_true_reason(listener: PyAvListener, made: Made, reason: str) -> None:
    data = made()
    if not data:
        pytest.skip("that there is nothing is seen before")
    with pytest.raises(ChatAssistError) as caught:
        await hear(listener, data)
    assert caught.value.slug == reason


async def test_noises_that_are_no_speech(listener: PyAvListener) -> None:
    import numpy as np

    clicks = silence(3)
    clicks[::4000] = 0.8
    steps = np.cumsum(noise(3, -20))
    chord = sum(tone(440 * n) / n for n in range(1, 6)) / 2
    for sound in (clicks, at(-25, steps - steps.mean()), chord, noise(3, -70), tone(1000)):
        with pytest.raises(ChatAssistError) as caught:
            await hear(listener, wav(sound))
        assert caught.value.slug == "audio_no_speech"


async def test_seconds_are_counted_while_they_are_decoded() -> None:
    bomb = recognise(encoded(silence(3000), AudioKind.FLAC))
    assert len(bomb.data) < 700_000, "of which 96 MB would be made"
    tracemalloc.start()
    try:
        with pytest.raises(AudioTooLong):
            await asyncio.to_thread(decode, bomb, most=60)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 6_000_000


async def test_a_rate_that_makes_hours_of_a_frame_is_refused_before_it_does(listener: PyAvListener) -> None:
    for rate in (1, 100, 3_999, 200_000):
        with pytest.raises((AudioCorrupt, AudioTooLong)):
            await hear(listener, wav(spoken(), rate=rate))


@pytest.mark.parametrize("kind", list(AudioKind))
async def test_no_file_of_this_machine_is_opened_for_a_recording(
    listener: PyAvListener, kind: AudioKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the look at its first bytes was wrong."""
    (tmp_path / "victim.wav").write_bytes(recording(AudioKind.WAV))
    monkeypatch.chdir(tmp_path)
    inside = b"OggS" + PLAYLIST
    for data in (PLAYLIST, TAG + PLAYLIST, b"#EXTM3U\n#EXTINF:1,\nvictim.wav\n", inside):
        with pytest.raises(ChatAssistError):
            await listener.listen(Audio(data=data, kind=kind))


async def test_an_m4a_that_refers_to_another_file_gets_nothing_of_it(
    listener: PyAvListener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "victim.wav").write_bytes(recording(AudioKind.WAV))
    monkeypatch.chdir(tmp_path)
    data = recording(AudioKind.M4A)
    own = struct.pack(">I4sI", 12, b"url ", 1)  # "the samples are in this file"
    assert data.count(own) == 1
    elsewhere = struct.pack(">I4sI", 12, b"alis", 0)
    sound = await hear(listener, data.replace(own, elsewhere))
    assert sound == await hear(listener, data), "it is read as if it referred to itself"


async def test_what_is_broken_in_the_middle_is_left_out(listener: PyAvListener) -> None:
    whole = bytearray(recording(AudioKind.AAC))
    whole[9_000:9_400] = bytes(400)
    assert (await hear(listener, bytes(whole))).seconds == pytest.approx(4.1, abs=0.4)


# --- How much is taken on -------------------------------------------------------------------------------------------


async def test_one_recording_is_worked_on_at_a_time_and_who_gives_up_is_let_go(listener: PyAvListener) -> None:
    audio = recognise(wav(noise(50, -20)))  # more than a second of work
    first, second = (asyncio.create_task(listener.listen(audio)) for _ in range(2))
    await asyncio.sleep(0.1)
    first.cancel()
    second.cancel()
    await asyncio.wait({first, second})
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await hear(listener, recording(AudioKind.MP3))
    assert loop.time() - begun < 1, "neither was finished before"


async def test_fifty_at_once_take_the_memory_of_one(listener: PyAvListener) -> None:
    audio = recognise(encoded(noise(59, -92), AudioKind.FLAC))  # 1.9 MB of samples, too quiet to be listened to

    async def refused() -> bool:
        with pytest.raises(AudioNoSpeech):
            await listener.listen(audio)
        return True

    assert await refused()
    tracemalloc.start()
    try:
        assert all(await asyncio.gather(*(refused() for _ in range(50))))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 8_000_000, "and not 96"


async def test_a_processor_that_cannot_run_the_model_is_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = tmp_path / "cpuinfo"
    about.write_text("flags : fpu sse sse2 avx\n")
    monkeypatch.setattr(gate, "_ABOUT", about)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(ValueError, match="lacks AVX2"):
        PyAvListener(most=60)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    await PyAvListener(most=60).aclose()


def test_the_rate_is_what_engines_hear() -> None:
    assert SAMPLE_RATE == RATE == 16_000
