"""What a recording is, by its bytes: real beginnings of every format, and what only looks like one."""

import time

import pytest

from chatassist.adapters.sniff import recognise
from chatassist.domain.audio import AudioKind
from chatassist.domain.errors import AudioUnsupported

MP3_FRAME = b"\xff\xfb\x90\x64" + b"\0" * 60
ADTS_FRAME = b"\xff\xf1\x60\x40\x3a\x9f\xfc" + b"\0" * 60


def id3(size: int, *, flags: int = 0, version: int = 4) -> bytes:
    coded = bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3" + bytes([version, 0, flags]) + coded + b"\1" * size


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"RIFF\x24\x08\0\0WAVEfmt ", AudioKind.WAV),
        (b"RIFF\xff\xff\xff\xffWAVEfmt ", AudioKind.WAV),  # written as a stream: the length was not known
        (b"\0\0\0\x1cftypM4A \0\0\2\0", AudioKind.M4A),
        (b"\0\0\0\x20ftypisom\0\0\2\0", AudioKind.M4A),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", AudioKind.M4A),
        (b"\0\0\0\x18ftyp3gp4\0\0\0\0", AudioKind.M4A),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", AudioKind.M4A),
        (MP3_FRAME, AudioKind.MP3),
        (b"\xff\xf3\x84\xc4", AudioKind.MP3),  # MPEG-2
        (b"\xff\xe3\x18\xc4", AudioKind.MP3),  # MPEG-2.5, 8 kHz
        (b"\xff\xfa\x90\x64", AudioKind.MP3),  # with a checksum
        (id3(35) + MP3_FRAME, AudioKind.MP3),
        (id3(300) + MP3_FRAME, AudioKind.MP3),
        (id3(10, flags=0x10) + b"3DI" + b"\0" * 7 + MP3_FRAME, AudioKind.MP3),
        (id3(10) + id3(20, version=3) + MP3_FRAME, AudioKind.MP3),
        (id3(10) + b"\0" * 500 + MP3_FRAME, AudioKind.MP3),
        (ADTS_FRAME, AudioKind.AAC),
        (b"\xff\xf9\x50\x80", AudioKind.AAC),  # MPEG-2
        (b"\xff\xf0\x50\x80", AudioKind.AAC),  # with a checksum
        (id3(63) + ADTS_FRAME, AudioKind.AAC),
        (b"#!AMR\n\x3c", AudioKind.AMR),
        (b"#!AMR-WB\n\x04", AudioKind.AMR),
        (b"OggS\0\2", AudioKind.OGG),
        (b"\x1aE\xdf\xa3\x9fB\x86", AudioKind.WEBM),
        (b"fLaC\0\0\0\x22", AudioKind.FLAC),
        (id3(20) + b"fLaC\0\0\0\x22", AudioKind.FLAC),
    ],
)
def test_the_bytes_decide(data: bytes, kind: AudioKind) -> None:
    audio = recognise(data)
    assert (audio.kind, audio.data) == (kind, data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"#!SILK_V3\x0c",
        b"\x02#!SILK_V3\x0c",
        b"#!AMR_MC1.0\n",
        b"caff\0\1\0\0desc",
        b"FORM\0\0\0\0AIFFCOMM",
        b"RIFF\x24\0\0\0AVI LIST",
        b"RIFF\x24\0\0\0WEBPVP8 ",
        b"WAVERIFF\0\0\0\0",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0\0\x10JFIF",
        b"\0\0\0\x18ftypheic\0\0\0\0",
        b"\0\0\0\x1cftypavif\0\0\0\0",
        b"\0\0\0\x18ftypmif1\0\0\0\0",
        b"GIF89a",
        b"%PDF-1.7",
        b"<!DOCTYPE html><html>",
        b'{"audio": true}',
        b"ffconcat version 1.0\nfile victim.wav\n",
        b"#EXTM3U\n#EXT-X-VERSION:3\n",
        b"\0" * 4096,
        bytes(range(256)),
        b"\x01\x00\xfe\xff" * 400,  # PCM without a header
        b"\xff\xff\xff\xff" * 400,  # quiet PCM: a sync that no frame has
        b"\xff\xfb\xf0\x64",  # a bitrate that does not exist
        b"\xff\xfb\x9c\x64",  # a sample rate that does not exist
        b"\xff\xeb\x90\x64",  # a version that does not exist
        b"\xff\xfd\x90\x64",  # layer II
        b"\xff\xf1\x7c\x40",  # ADTS of a sample rate that does not exist
        b"\xff\xfe\x41\x00",  # UTF-16
        b"ID3",
        id3(35),
        id3(35) + b"ffconcat version 1.0\nfile victim.wav\n",  # FFmpeg alone would open the other file
        id3(35) + b"#EXTM3U\n",
        id3(35) + b"RIFF\x24\x08\0\0WAVEfmt ",
        id3(35) + b"\x89PNG\r\n\x1a\n",
        b"ID3\4\0\0\xff\xff\xff\xff" + MP3_FRAME,
        id3(1) * 9 + MP3_FRAME,
    ],
    ids=lambda data: repr(data[:24]),
)
def test_what_is_no_recording_of_ours_is_unsupported(data: bytes) -> None:
    with pytest.raises(AudioUnsupported):
        recognise(data)


def test_looking_takes_no_time_however_large_and_hollow_it_is() -> None:
    hollow = id3(10) + b"\0" * 24_000_000
    begun = time.process_time()

    with pytest.raises(AudioUnsupported):
        recognise(hollow)

    assert time.process_time() - begun < 0.1
