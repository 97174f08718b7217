"""From an upload to a text, with a real recogniser: what espeak-ng said is what comes back."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import URL

from chatassist.domain.audio import AudioKind
from tests.fixtures.recogniser import SENTENCES, recognises
from tests.fixtures.recordings import at, at_8_khz, noise, wav
from tests.fixtures.service import Person, Serve, data_of, settings_for
from tests.fixtures.speech import RATE, encoded, said
from tests.fixtures.vendor import LoopbackVendor

VOICE = "en-us+f2"  # which pocketsphinx understands best


@pytest.fixture
async def person(sqlite_url: URL, serve: Serve, vendor: LoopbackVendor) -> Person:
    vendor.script = recognises()
    asr = {"engine": "whisper_api", "base_url": vendor.base_url, "model": "pocketsphinx"}
    api = await serve(settings_for(sqlite_url, asr=asr))
    logged_in: Person = await api.login()
    return logged_in


@pytest.mark.parametrize("kind", list(AudioKind))
async def test_what_is_said_in_any_format_is_what_comes_back(person: Person, kind: AudioKind) -> None:
    for sentence in SENTENCES[:2]:
        recording = encoded(said(sentence, VOICE), kind)
        assert data_of(await person.speaks(recording, "recording.mp3"))["text"] == sentence


DAMAGED: Mapping[str, Callable[[Any], bytes]] = {
    "8 kHz, two channels": at_8_khz,
    "at -45 dBFS": lambda sound: wav(at(-45, sound)),
    "beside the middle": lambda sound: wav((sound * 0.4 + 0.3).clip(-1, 1)),
    "clipped": lambda sound: wav((sound * 4).clip(-1, 1)),
    "in a quiet room": lambda sound: wav(at(-25, sound) + noise(len(sound) / RATE + 1, -45)[: len(sound)]),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
async def test_what_is_said_is_understood_all_the_same(person: Person, damage: Callable[[Any], bytes]) -> None:
    for sentence in SENTENCES[2:4]:
        assert data_of(await person.speaks(damage(said(sentence, VOICE))))["text"] == sentence
