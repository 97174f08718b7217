"""Whisper on this machine, by faster-whisper (the extra `whisper`).

One recording is worked on at a time, since one keeps all cores busy; a bounded number waits for it. A thread cannot be
cancelled, and ends what nobody waits for any more only at its next segment: meanwhile a second thread goes on.
"""

import asyncio
import contextlib
import logging
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from chatassist.adapters.asr.whisper_doubts import Line, believed
from chatassist.adapters.clean_text import cleaned
from chatassist.domain.audio import Sound, Transcript
from chatassist.domain.errors import AsrBusy, AsrUnavailable
from chatassist.domain.ports.asr import NO_HINTS, Hints, Transcriber

log = logging.getLogger(__name__)

_FILES = ("model.bin", "config.json", "tokenizer.json")  # without the last, it is fetched from the internet
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_THREADS = 2  # one that works, and one that may still be busy with what was given up
_CORES = max(1, min(4, (os.cpu_count() or 2) - 1))  # a core is left to the event loop; on all of them, all get slow
_SIMPLIFIED = "以下是普通话的句子。"  # what follows is written like this: simplified, with punctuation
_PATIENCE = (0.0, 0.4, 0.8)  # temperatures: two more tries at what comes out badly, and no five
_PAUSES = {"min_silence_duration_ms": 500, "min_speech_duration_ms": 200}  # of dictation; by default those of films


class LocalWhisperTranscriber(Transcriber):
    """`model`: a directory, or a name that faster-whisper downloads. `waiting`: how many recordings may queue.

    Raises ValueError, in a sentence for the operator, if it could never work.
    """

    def __init__(self, *, model: str, waiting: int = 8) -> None:
        if find_spec("faster_whisper") is None:
            raise ValueError("faster-whisper is not installed; install chatassist[whisper]")
        self._name = _checked(model)
        self._model: Any = None
        self._loading = threading.Lock()
        self._places = 1 + waiting
        self._taken = 0
        self._turn = asyncio.Lock()
        self._closed = threading.Event()
        self._workers = ThreadPoolExecutor(_THREADS, thread_name_prefix="whisper")

    def warm(self) -> None:
        """Begin to load the model, so that the first recording need not wait for it; returns at once."""
        self._workers.submit(self._warm)

    async def aclose(self) -> None:
        """Drop what waits; what runs ends at its next segment."""
        self._closed.set()
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def transcribe(self, sound: Sound, hints: Hints = NO_HINTS) -> Transcript:
        """Let a worker do it; see Transcriber."""
        if self._taken >= self._places:
            raise AsrBusy
        self._taken += 1
        given_up = threading.Event()
        job: Future[Transcript] | None = None
        try:
            async with self._turn:
                job = self._workers.submit(self._work, sound, hints, given_up)
                return await asyncio.wrap_future(job)
        finally:
            given_up.set()
            self._leave(job)
            del job  # it holds the error, the error this frame with the sound in it

    def _leave(self, job: Future[Transcript] | None) -> None:
        """Give the place back: at once, or when the thread has let go of the recording."""
        if job is None or job.done():
            self._taken -= 1
            return
        loop = asyncio.get_running_loop()

        def over(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody asks for places any more
                loop.call_soon_threadsafe(self._leave, None)

        job.add_done_callback(over)

    def _work(self, sound: Sound, hints: Hints, given_up: threading.Event) -> Transcript:
        if given_up.is_set():
            return Transcript(text="")
        try:
            model = self._loaded()
            language = hints.language if hints.language in model.supported_languages else None
            segments, info = model.transcribe(
                _floats(sound),
                language=language,
                initial_prompt=_prompt(hints),
                condition_on_previous_text=False,  # feeds repetition
                temperature=_PATIENCE,
                vad_filter=True,
                vad_parameters=_PAUSES,
            )
            text = "".join(self._until(given_up, segments))
        except (OSError, RuntimeError, ValueError) as exc:
            raise AsrUnavailable(f"faster-whisper failed: {type(exc).__name__}") from exc
        return Transcript(text=cleaned(text).strip(), language=info.language)

    def _until(self, given_up: threading.Event, segments: Any) -> Iterator[str]:
        """Yield texts; each step of `segments` is where the work is done."""
        for segment in segments:
            if given_up.is_set() or self._closed.is_set():
                return
            yield believed(_line(segment))

    def _loaded(self) -> Any:
        with self._loading:
            if self._model is None:
                from faster_whisper import WhisperModel  # noqa: PLC0415 - an extra, and slow to import

                self._model = WhisperModel(self._name, cpu_threads=_CORES, num_workers=_THREADS)
            return self._model

    def _warm(self) -> None:
        try:
            self._loaded()
        except (OSError, RuntimeError, ValueError) as exc:  # the first recording tries again, and tells its user
            log.warning("Whisper cannot be loaded", extra={"detail": type(exc).__name__})
        else:
            log.info("Whisper is loaded")


def _floats(sound: Sound) -> Any:
    import numpy as np  # noqa: PLC0415 - comes with the extra

    return np.frombuffer(sound.samples, dtype="<i2").astype(np.float32) / 32_768


def _prompt(hints: Hints) -> str | None:
    """Return what is said to have been said before. Chinese is meant where nothing else is."""
    parts = (_SIMPLIFIED if hints.language in (None, "zh") else None, hints.prompt)
    return "".join(part for part in parts if part) or None


def _line(segment: Any) -> Line:
    return Line(
        text=segment.text,
        seconds=segment.end - segment.start,
        no_speech_prob=segment.no_speech_prob,
        avg_logprob=segment.avg_logprob,
        compression_ratio=segment.compression_ratio,
    )


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
