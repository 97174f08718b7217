"""From a file to samples, by PyAV. A file is whatever somebody sent: each way in is a named one, and each is capped.

FFmpeg would guess what a file is, and some of what it guesses opens other files of this machine (a playlist that says
`file secret.wav`): the demuxer is the one that our own look at the bytes names. Headers are not believed either: what
counts is what is decoded, and it is counted before it is kept, since 100 KB of flac can unpack to hours.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from types import MappingProxyType
from typing import Any

from chatassist.adapters.asr.plain_wav import plain_wav
from chatassist.domain.audio import SAMPLE_RATE, Audio, AudioKind
from chatassist.domain.errors import AudioCorrupt, AudioTooLong, AudioUnsupported

SLACK = 0.5
"""Seconds over a limit: encoders put up to 0.1 s in front, and recorders that stop at a limit stop a little late."""

_DEMUXERS: Mapping[AudioKind, str] = MappingProxyType(
    {
        AudioKind.MP3: "mp3",
        AudioKind.WAV: "wav",
        AudioKind.M4A: "mov",
        AudioKind.AAC: "aac",
        AudioKind.AMR: "amr",
        AudioKind.OGG: "ogg",
        AudioKind.WEBM: "matroska",
        AudioKind.FLAC: "flac",
    }
)
_CODECS = (
    "mp3,mp3float,aac,aac_latm,alac,flac,opus,libopus,vorbis,libvorbis,speex,libspeex"
    ",amrnb,amrwb,libopencore_amrnb,libopencore_amrwb,pcm_alaw,pcm_mulaw,adpcm_ms,adpcm_ima_wav,gsm_ms"
    ",pcm_u8,pcm_s8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,pcm_f64le"
)
"""What recorders of speech use: a container can name any of hundreds, the oldest and least tried among them."""

_RATES = range(4_000, 192_001)  # Hz; at 1 Hz, one frame would be hours
_CHANGES = 8  # of rate or channels within a recording: AAC does so once, when it finds its upper band
_Cut = Callable[[], bool]


@dataclass(slots=True)
class _Count:
    frames: int = 0
    broken: int = 0
    seconds: float = 0.0


def decode(audio: Audio, *, most: float, given_up: _Cut = lambda: False) -> bytes:
    """Return the samples (see Sound), of `most` seconds and SLACK at most; nothing for a file without any sound.

    `given_up`: asked now and then whether somebody still waits. What is broken in between is left out; of a file that
    is cut off, what is there counts. Raises AudioUnsupported, AudioCorrupt, AudioTooLong.
    """
    import av  # noqa: PLC0415 - 30 MB of memory and 0.1 s, for those alone who have speech to text

    av.logging.set_level(None)  # what FFmpeg has to say of a file would go to standard error, past our logs
    count, samples = _Count(), bytearray()
    try:
        with _opened(av, audio) as container:
            frames = _frames(av, container, count, given_up)
            for piece in _resampled(av, _capped(frames, count, most)):
                samples += memoryview(piece.planes[0])[: 2 * piece.samples]
    except (av.FFmpegError, IndexError, EOFError, ValueError, OverflowError) as exc:
        if not samples:
            raise AudioCorrupt(f"it cannot be decoded: {type(exc).__name__}") from exc
    if count.broken > count.frames:
        raise AudioCorrupt(f"{count.broken} pieces are broken, {count.frames} are not")
    return bytes(samples)


def _opened(av: Any, audio: Audio) -> Any:
    demuxer = _DEMUXERS[audio.kind]
    data = plain_wav(audio.data) if audio.kind is AudioKind.WAV else audio.data
    return av.open(
        io.BytesIO(data),
        mode="r",
        format=demuxer,
        options={"format_whitelist": _names(av, demuxer), "codec_whitelist": _CODECS},
        metadata_errors="ignore",
    )


@cache
def _names(av: Any, demuxer: str) -> str:
    """Return how FFmpeg itself calls the demuxer: `mov` is one of a handful of names."""
    return str(av.format.ContainerFormat(demuxer, "r").name)


def _frames(av: Any, container: Any, count: _Count, given_up: _Cut) -> Iterator[Any]:
    stream = container.streams.audio[0]
    codec = stream.codec_context.name if stream.codec_context else "unknown"
    if codec not in _CODECS.split(","):
        raise AudioUnsupported(f"its codec is {codec}")
    for packet in container.demux(stream):
        if given_up():
            return
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            count.broken += 1
            continue
        yield from frames


def _capped(frames: Iterator[Any], count: _Count, most: float) -> Iterator[Any]:
    """Let frames pass until they are too many. Raises AudioTooLong, AudioCorrupt."""
    for frame in frames:
        if frame.sample_rate not in _RATES:
            raise AudioCorrupt(f"it has {frame.sample_rate} samples a second")
        count.frames += 1
        count.seconds += frame.samples / frame.sample_rate
        if count.seconds > most + SLACK:
            raise AudioTooLong(f"it holds more than {most:g} s of sound")
        frame.pts = None
        yield frame


def _resampled(av: Any, frames: Iterator[Any]) -> Iterator[Any]:
    """Bring frames to one channel at our rate, whatever they have, and even if they change it."""
    resampler, shape, changes = None, None, 0
    for frame in chain(frames, (None,)):
        now = frame and (frame.format.name, frame.layout.name, frame.sample_rate)
        if now != shape:
            if resampler:
                yield from resampler.resample(None)
            resampler, shape, changes = None, now, changes + 1
            if changes > _CHANGES:
                raise AudioCorrupt("it changes its rate or channels all the time")
        if frame is not None:
            resampler = resampler or av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            yield from resampler.resample(frame)
