"""Brings samples to an even level: what a microphone adds to all of them is taken off, and quiet speech is raised.

Recordings of phones held at arm's length have their loudest moment at 1 % of full scale: engines hear them badly.
"""

import time
from array import array
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from chatassist.domain.audio import SAMPLE_RATE

_FULL = 32_767
_AIM = 0.9  # of full scale, for the loudest moment of what is raised
_MOST_GAIN = 20.0  # 26 dB; more would raise the noise of a room to speech
_CLIPPED = 0.001  # of all samples at the very end of the scale: more than any loud word leaves there
_OFFSET = 33  # of 32,767: less than 0.1 % does no harm
_BLOCK = SAMPLE_RATE  # bytes, half a second: 0.5 ms of work
_BREATH = 1e-4  # seconds between blocks: whoever waits for the interpreter gets it now, and not after 5 ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """How samples lie: `offset` is their mean, `peak` the largest distance from it, both of 32,767."""

    offset: int
    peak: int
    clipped: bool


def level_of(samples: bytes) -> Level:
    """Measure samples, of which there is at least one."""
    low, high, total, ends = _FULL, -_FULL - 1, 0, 0
    for start in range(0, len(samples), _BLOCK):
        block = array("h", samples[start : start + _BLOCK])
        least, most = min(block), max(block)
        if least < -_FULL or most == _FULL:
            ends += block.count(_FULL) + block.count(-_FULL - 1)
        low, high, total = min(low, least), max(high, most), total + sum(block)
        time.sleep(_BREATH)
    count = len(samples) // 2
    offset = round(total / count)
    return Level(offset=offset, peak=max(high - offset, offset - low), clipped=ends > _CLIPPED * count)


def levelled(samples: bytes, level: Level) -> bytes:
    """Return them without offset, raised by up to 26 dB; as they are if that changes nothing worth the work."""
    gain = min(_MOST_GAIN, _AIM * _FULL / level.peak) if level.peak else 1.0
    if level.peak <= _FULL:
        gain = max(gain, 1.0)  # what is loud stays as loud
    if abs(level.offset) < _OFFSET and gain < 1.1:
        return samples
    return _moved(samples, -level.offset / (_FULL + 1), gain)


def _moved(samples: bytes, shift: float, gain: float) -> bytes:
    """Add a part of full scale, then multiply: by FFmpeg, for Python takes 0.1 µs a sample and holds all others up."""
    import av  # noqa: PLC0415 - see decode

    down = min(gain, 1.0)
    graph: Any = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=SAMPLE_RATE, format="s16", layout="mono", time_base=Fraction(1, SAMPLE_RATE))
    steps = [
        graph.add("volume", f"volume={down:.8f}:precision=double"),  # before, for what is moved may not reach the end
        graph.add("dcshift", f"shift={shift * down:.8f}"),
        graph.add("volume", f"volume={gain / down:.8f}:precision=double"),
        graph.add("aformat", f"sample_fmts=s16:channel_layouts=mono:sample_rates={SAMPLE_RATE}"),
        graph.add("abuffersink"),
    ]
    for before, after in zip((source, *steps), steps, strict=False):
        before.link_to(after)
    graph.configure()
    frame: Any = av.AudioFrame(format="s16", layout="mono", samples=len(samples) // 2)
    frame.sample_rate, frame.time_base, frame.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), 0
    frame.planes[0].update(samples.ljust(frame.planes[0].buffer_size, b"\0"))
    source.push(frame)
    source.push(None)
    moved = bytearray()
    while len(moved) < len(samples):
        piece = steps[-1].pull()
        moved += memoryview(piece.planes[0])[: 2 * piece.samples]
    return bytes(moved)
