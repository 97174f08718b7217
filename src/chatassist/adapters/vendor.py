"""What an AI vendor is to us, as values: where it is, how it wants to be spoken to, and what is odd about it.

The vendors themselves are rows of `catalogue`; which of them an operator uses is a matter of settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from chatassist.adapters.vendor_errors import Kind

Body = Mapping[str, object]
"""Members of a request's JSON body."""


class Auth(StrEnum):
    """How a key is shown."""

    BEARER = "bearer"
    """`Authorization: Bearer …`"""
    API_KEY = "api_key"
    """`api-key: …`, as Azure wants it."""
    NONE = "none"
    """No key is needed; one that is set is shown as a bearer's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinking:
    """How reasoning is switched on and off, and where it comes from: members of a message or delta, the first counts.

    None: the vendor has no such switch. Inline `<think>` is looked for everywhere.
    """

    on: Body | None = None
    off: Body | None = None
    fields: Sequence[str] = ("reasoning_content", "reasoning")


class TranscriptionStyle(StrEnum):
    """How a vendor is given a recording."""

    OPENAI = "openai"
    """Multipart `POST /audio/transcriptions`."""
    CHAT = "chat"
    """`POST /chat/completions` with a part `input_audio` (DashScope)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptionRoute:
    """A vendor's speech to text. `hints`: it takes `language` and `prompt`; `kinds`: of `AudioKind`, all if empty."""

    model: str
    style: TranscriptionStyle = TranscriptionStyle.OPENAI
    hints: bool = True
    kinds: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechRoute:
    """A vendor's text to speech, `POST /audio/speech`: `format` is mp3 where the vendor can; `max_chars` of a text."""

    model: str
    voice: str
    format: str = "mp3"
    max_chars: int = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """One kind of vendor. Everything but its name can be overridden by an operator.

    `base_url`: None where only the operator knows it; `hosts`: by which a given address is recognised;
    `limit_parameter`: what the longest answer is called, None where it is not taken; `usage_in`: where counts stand
    beside the top of an event; `codes`: what its own error codes mean, as they are or as they begin, in lower case;
    `errors_in`: members that an error may hide in beside the usual ones; `extra`: optional members of each request;
    `at_once`: calls that it takes at a time, None for no known limit; `models`: examples, for the documentation alone.
    """

    name: str
    title: str
    base_url: str | None
    hosts: Sequence[str] = ()
    auth: Auth = Auth.BEARER
    query: Mapping[str, str] = field(default_factory=dict)
    limit_parameter: str | None = "max_tokens"
    max_temperature: float = 2.0
    counts_usage: bool = True
    """Whether it takes `stream_options.include_usage`."""
    usage_in: Sequence[str] = ()
    thinking: Thinking = Thinking()
    extra: Body = field(default_factory=dict)
    codes: Mapping[str, Kind] = field(default_factory=dict)
    errors_in: Sequence[str] = ()
    at_once: int | None = None
    transcription: TranscriptionRoute | None = None
    speech: SpeechRoute | None = None
    models: Sequence[str] = ()
    note: str = ""
    """What an operator should know, in a sentence or two of English."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A vendor as somebody may use it: the kind with all overrides, the address (whole, repaired) and the key."""

    vendor: Vendor
    base_url: str
    api_key: str = field(default="", repr=False)
