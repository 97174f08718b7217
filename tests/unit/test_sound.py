"""Sound as engines are given it: its length, its file, and where it is parted for those who take only so much."""

import io
import random
import wave
from array import array

import pytest

from chatassist.domain.audio import SAMPLE_RATE, Sound


def loud(seconds: float) -> bytes:
    dice = random.Random(3)  # noqa: S311
    return array("h", (dice.randint(-9000, 9000) for _ in range(int(seconds * SAMPLE_RATE)))).tobytes()


def quiet(seconds: float) -> bytes:
    return bytes(2 * int(seconds * SAMPLE_RATE))


def test_its_length_is_that_of_its_samples() -> None:
    assert Sound(samples=loud(2.5)).seconds == 2.5
    assert Sound(samples=b"\0\0").seconds == 1 / 16_000


def test_its_file_is_one_channel_of_16_bits_at_16_khz() -> None:
    samples = loud(0.1)
    with wave.open(io.BytesIO(Sound(samples=samples).wav())) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        assert file.readframes(9999) == samples


def test_what_is_short_enough_stays_whole() -> None:
    sound = Sound(samples=loud(2), clipped=True)
    assert list(sound.within(2)) == [sound]


def test_it_is_parted_in_the_last_pause_before_the_limit() -> None:
    sound = Sound(samples=loud(2) + quiet(0.2) + loud(1) + quiet(0.2) + loud(2))
    first, second = sound.within(4)
    assert first.samples + second.samples == sound.samples, "nothing is lost, nothing is said twice"
    assert first.seconds == pytest.approx(3.4, abs=0.03), "within the pause, not at its edge by more than 20 ms"


@pytest.mark.parametrize("samples", [loud(10), quiet(10), loud(3.99) + quiet(6)], ids=["noise", "silence", "mixed"])
@pytest.mark.parametrize("most", [1, 2.5, 9.999])
def test_no_part_is_longer_and_none_is_a_shred_but_the_last(samples: bytes, most: float) -> None:
    parts = list(Sound(samples=samples).within(most))
    assert b"".join(part.samples for part in parts) == samples
    assert all(most / 2 - 0.03 <= part.seconds <= most for part in parts[:-1])
    assert 0 < parts[-1].seconds <= most
    assert all(len(part.samples) % 2 == 0 for part in parts)
