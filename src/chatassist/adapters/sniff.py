"""What a recording is, by its first bytes: both directions of speech ask. No name counts: WeChat's tools send webm as
.wav, phones mp4 as .aac.

A tag is skipped as FFmpeg skips it, and something known has to follow: FFmpeg would look there for any of its formats,
among them playlists that name files of this machine.
"""

from collections.abc import Mapping
from types import MappingProxyType

from chatassist.domain.audio import Audio, AudioKind
from chatassist.domain.errors import AudioUnsupported

_BEGINNINGS: Mapping[bytes, AudioKind] = MappingProxyType(
    {
        b"fLaC": AudioKind.FLAC,
        b"OggS": AudioKind.OGG,
        b"\x1aE\xdf\xa3": AudioKind.WEBM,
        b"#!AMR\n": AudioKind.AMR,
        b"#!AMR-WB\n": AudioKind.AMR,
    }
)
# Of the family of mp4, but pictures.
_PICTURES = (b"hei", b"hev", b"mif", b"msf", b"avif", b"avis", b"crx", b"jp")
_TAGS = 8  # ID3 tags in a row
_TAG_HEADER = 10  # bytes
_PADDING = 64 * 1024  # bytes


def recognise(data: bytes) -> Audio:
    """Return the recording with the kind that its bytes show. Raises AudioUnsupported."""
    start = _after_tags(data)
    kind = _tagged(data[start : start + 4]) if start else _kind(data[:16])
    if kind is None:
        raise AudioUnsupported
    return Audio(data=data, kind=kind)


def _kind(head: bytes) -> AudioKind | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return AudioKind.WAV
    if head[4:8] == b"ftyp":
        return None if head[8:].startswith(_PICTURES) else AudioKind.M4A
    found = next((kind for beginning, kind in _BEGINNINGS.items() if head.startswith(beginning)), None)
    return found or _frame(head)


def _tagged(head: bytes) -> AudioKind | None:
    """Return what may stand behind an ID3 tag."""
    return AudioKind.FLAC if head == b"fLaC" else _frame(head)


def _frame(head: bytes) -> AudioKind | None:
    """Tell MPEG audio of layer III from AAC in ADTS: they share the first 11 bits; the layer tells them apart."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    if layer == 0:  # ADTS, whose sync has 12 bits; sample rates 13 to 15 do not exist
        return AudioKind.AAC if version & 2 and head[2] >> 2 & 15 < 13 else None
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    return AudioKind.MP3 if layer == 1 and version != 1 and bitrate != 15 and rate != 3 else None


def _after_tags(data: bytes) -> int:
    """Return where the ID3v2 tags end, and the zeros that some writers leave behind them; 0 without a tag."""
    start = 0
    for _ in range(_TAGS):
        tag = data[start : start + _TAG_HEADER]
        if len(tag) < _TAG_HEADER or tag[:3] != b"ID3" or max(tag[6:]) > 127:
            break
        size = tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9]  # 7 bits a byte
        footer = _TAG_HEADER if tag[5] & 0x10 else 0
        start += _TAG_HEADER + size + footer
    padding = data[start : start + _PADDING] if start else b""
    return start + len(padding) - len(padding.lstrip(b"\0"))
