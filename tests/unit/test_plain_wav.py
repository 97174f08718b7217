"""WAVs stripped to form and samples, whatever their lengths claim."""

import struct

import pytest

from chatassist.adapters.asr.plain_wav import plain_wav
from chatassist.domain.errors import AudioCorrupt

FORM = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16)
SAMPLES = bytes(range(1, 11))


def chunk(name: bytes, body: bytes, length: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if length is None else length) + body + bytes(len(body) % 2)


def wav(*chunks: bytes) -> bytes:
    inside = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(inside)) + inside


PLAIN = wav(chunk(b"fmt ", FORM), chunk(b"data", SAMPLES))


@pytest.mark.parametrize(
    "chunks",
    [
        (chunk(b"fmt ", FORM), chunk(b"data", SAMPLES)),
        (chunk(b"JUNK", b"odd"), chunk(b"fmt ", FORM), chunk(b"LIST", b"INFO"), chunk(b"data", SAMPLES)),
        (chunk(b"fmt ", FORM), chunk(b"data", SAMPLES), chunk(b"LIST", b"INFOISFT", 0xCD00001A)),
        (chunk(b"fmt ", FORM), chunk(b"data", SAMPLES, 0)),
        (chunk(b"fmt ", FORM), chunk(b"data", SAMPLES, 0xFFFFFFFF)),
        (chunk(b"fmt ", FORM), chunk(b"data", SAMPLES, 1_000_000)),
    ],
)
def test_form_and_samples_are_left(chunks: tuple[bytes, ...]) -> None:
    assert plain_wav(wav(*chunks)) == PLAIN


@pytest.mark.parametrize(
    "data",
    [
        b"",
        wav(),
        wav(chunk(b"fmt ", FORM)),
        wav(chunk(b"data", SAMPLES)),
        wav(chunk(b"fmt ", FORM), chunk(b"LIST", b"INFO", 0xCD00001A), chunk(b"data", SAMPLES)),
        wav(chunk(b"fmt ", FORM), chunk(b"dat", b"")),
    ],
)
def test_without_one_of_them_it_is_none(data: bytes) -> None:
    with pytest.raises(AudioCorrupt):
        plain_wav(data)
