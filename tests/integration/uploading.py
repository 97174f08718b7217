"""How tests of uploads make and send them, and the service that they are sent to."""

import json
from typing import Any

from sqlalchemy import URL

from chatassist.domain.audio import AudioKind
from tests.fixtures.logs import RUN
from tests.fixtures.service import Answer, Api, Person, Serve, settings_for
from tests.fixtures.speech import recording
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import sends

PATH = "/v1/ai/speech-to-text"
KEY = "sk-loopback-key-1234"
SAID = "请帮我把明天的会议改到下午三点"
CAP = 1024 * 1024
B = "boundary-of-the-form"
FLAC = b"fLaC" + b"sound" * 20  # looks like a recording, and is never looked into


def speech() -> bytes:
    return recording(AudioKind.MP3)


def whisper(vendor: LoopbackVendor, **more: Any) -> dict[str, Any]:
    return {"engine": "whisper_api", "base_url": vendor.base_url, "api_key": KEY, "model": "whisper-1", **more}


async def service_that_hears(sqlite_url: URL, serve: Serve, vendor: LoopbackVendor) -> Api:
    """Start a service that transcribes by a vendor who always hears the same."""
    vendor.script = sends(json.dumps({"text": SAID}).encode(), content_type="application/json")
    RUN.keep_private(SAID, KEY)
    limits = {"audio_bytes": CAP, "speech_per_minute": 0}
    made: Api = await serve(settings_for(sqlite_url, asr=whisper(vendor), limits=limits))
    return made


def part(name: str, content: bytes, filename: str | None = None, *more: str) -> bytes:
    names = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename is not None else "")
    head = "\r\n".join([f"Content-Disposition: {names}", *more])
    return f"--{B}\r\n{head}\r\n\r\n".encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{B}--\r\n".encode()


async def post(person: Person, body: Any, content_type: str = f"multipart/form-data; boundary={B}") -> Answer:
    return await person.http.post(PATH, content=body, headers={**person.bearer, "Content-Type": content_type})
