"""Whisper on this machine, by faster-whisper (the extra `whisper`). The model is loaded once, at the first recording.

One worker thread does all the work, since one recording keeps all cores busy; a bounded number waits for it. A thread
cannot be cancelled: work that nobody waits for any more keeps its place until the thread comes to it and drops it, or
ends at the next segment.
"""

import asyncio
import io
import os
import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from chatassist.adapters.clean_text import cleaned
from chatassist.domain.audio import Audio, AudioKind, Transcript
from chatassist.domain.errors import AsrBusy, AsrUnavailable, AudioTooLarge, AudioUnsupported
from chatassist.domain.ports.asr import NO_HINTS, Hints, Transcriber

_FILES = ("model.bin", "config.json", "tokenizer.json")  # without the last, it is fetched from the internet
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_RATE = 16_000  # samples a second, as Whisper hears
_THREADS = max(1, min(4, (os.cpu_count() or 2) - 1))  # a core is left to the event loop; on all of them, all get slow
_MAX_SECONDS = 600  # of decoded sound, 38 MB: a flac of 112 KB can unpack to as much

# The demuxer is named, never guessed: FFmpeg's guess may be a playlist that opens other files of this machine.
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


class LocalWhisperTranscriber(Transcriber):
    """`model`: a directory, or a name that faster-whisper downloads. `waiting`: how many recordings may queue.

    Raises ValueError, in a sentence for the operator, if it could never work.
    """

    def __init__(self, *, model: str, waiting: int = 8) -> None:
        if find_spec("faster_whisper") is None:
            raise ValueError("faster-whisper is not installed; install chatassist[whisper]")
        self._name = _checked(model)
        self._model: Any = None  # the worker thread's own
        self._places = 1 + waiting
        self._jobs: set[Future[Transcript]] = set()
        self._closed = threading.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="whisper")

    async def aclose(self) -> None:
        """Drop what waits; what runs ends at its next segment."""
        self._closed.set()
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def transcribe(self, audio: Audio, hints: Hints = NO_HINTS) -> Transcript:
        """Let the worker do it; see Transcriber."""
        if len(self._jobs) >= self._places:
            raise AsrBusy
        given_up = threading.Event()
        job = self._worker.submit(self._work, audio, hints, given_up)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        try:
            # Shielded: a place is free only when the thread has let go of the recording.
            return await asyncio.shield(asyncio.wrap_future(job))
        finally:
            given_up.set()

    def _work(self, audio: Audio, hints: Hints, given_up: threading.Event) -> Transcript:
        if given_up.is_set():
            return Transcript(text="")
        sound = _decode(audio)
        try:
            model = self._loaded()
            language = hints.language if hints.language in model.supported_languages else None
            segments, info = model.transcribe(
                sound,
                language=language,
                initial_prompt=hints.prompt,
                condition_on_previous_text=False,  # feeds repetition
                vad_filter=True,
            )
            text = "".join(self._until(given_up, segments))
        except (OSError, RuntimeError, ValueError) as exc:
            raise AsrUnavailable(f"faster-whisper failed: {type(exc).__name__}") from exc
        return Transcript(text=cleaned(text).strip(), language=info.language, duration=round(len(sound) / _RATE, 2))

    def _until(self, given_up: threading.Event, segments: Any) -> Iterator[str]:
        """Yield texts; each step of `segments` is where the work is done."""
        for segment in segments:
            if given_up.is_set() or self._closed.is_set():
                return
            yield segment.text

    def _loaded(self) -> Any:
        if self._model is None:
            from faster_whisper import WhisperModel  # noqa: PLC0415 - an extra, and slow to import

            self._model = WhisperModel(self._name, cpu_threads=_THREADS)
        return self._model


def _checked(model: str) -> str:
    folder = Path(model).expanduser()
    if folder.is_dir():
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise ValueError(f"the model's directory lacks {' and '.join(missing)}")
        return str(folder)
    if not _HUB_NAME.fullmatch(model):
        raise ValueError("the model is neither a directory that exists nor a name such as small")
    return model


def _decode(audio: Audio) -> Any:
    """Return the sound as Whisper takes it: one channel, float32, 16 kHz. Raises AudioUnsupported, AudioTooLarge."""
    import av  # noqa: PLC0415 - comes with the extra
    import numpy as np  # noqa: PLC0415

    resampler = av.AudioResampler(format="flt", layout="mono", rate=_RATE)
    parts, samples = [], 0
    try:
        source = io.BytesIO(audio.data)
        with av.open(source, mode="r", format=_DEMUXERS[audio.kind], metadata_errors="ignore") as container:
            for frame in container.decode(audio=0):
                frame.pts = None
                for piece in resampler.resample(frame):
                    parts.append(piece.to_ndarray()[0])
                    samples += piece.samples
                if samples > _MAX_SECONDS * _RATE:
                    raise AudioTooLarge(f"it holds more than {_MAX_SECONDS} s of sound")
            parts += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    except (av.FFmpegError, IndexError, EOFError, ValueError) as exc:  # IndexError: nothing in it can be heard
        raise AudioUnsupported(f"it cannot be decoded: {type(exc).__name__}") from exc
    if not samples:
        raise AudioUnsupported("it holds no sound")
    return np.concatenate(parts)
