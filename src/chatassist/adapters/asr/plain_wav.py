"""A WAV with nothing in it but its form and its samples.

FFmpeg believes the lengths of what else may stand in one: a comment of a forged length took 1.1 GB for 135 bytes.
"""

from chatassist.domain.errors import AudioCorrupt

_HEAD = 12  # bytes of `RIFF….WAVE`
_FORM = 128  # bytes; those of the formats that we take have 50 at most
_STREAMED = (0, 0xFFFFFFFF)  # written by who did not know the length yet: the samples go on to the end


def plain_wav(data: bytes) -> bytes:
    """Return it with true lengths. Raises AudioCorrupt where form or samples are missing."""
    form, place = b"", _HEAD
    while place + 8 <= len(data):
        name, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        place += 8
        if name == b"fmt ":
            form = data[place : place + min(length, _FORM)]
        elif name == b"data" and form:
            end = len(data) if length in _STREAMED else place + length
            inside = b"".join((b"WAVE", *_chunk(b"fmt ", form), *_chunk(b"data", data[place:end])))
            return b"RIFF" + _size(len(inside)) + inside
        place += length + length % 2
    raise AudioCorrupt("it has no form, or no samples")


def _chunk(name: bytes, body: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    return name, _size(len(body)), body, bytes(len(body) % 2)


def _size(count: int) -> bytes:
    return count.to_bytes(4, "little")
