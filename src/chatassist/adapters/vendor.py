"""What an AI vendor is to us, as values: where it is, how it wants to be spoken to, and what is odd about it.

The vendors themselves are rows of `catalogue`; which of them an operator uses is a matter of settings.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from chatassist.adapters.vendor_errors import Kind, Refusals

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

    None: nothing can or need be said for that. A field may hold text, or a list of objects that hold `text` or
    `summary`. Inline `<think>` is looked for everywhere.
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
    """A vendor's speech to text. `hints`: it takes `language` and `prompt`; `max_seconds`: of one recording."""

    model: str
    style: TranscriptionStyle = TranscriptionStyle.OPENAI
    hints: bool = True
    max_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechRoute:
    """A vendor's text to speech, `POST /audio/speech`: `format` is mp3 where the vendor can; `max_chars` of a text."""

    model: str
    voice: str
    format: str = "mp3"
    max_chars: int = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """One kind of vendor. Everything but its name can be overridden by an operator."""

    name: str
    title: str
    base_url: str | None
    """None where only the operator knows it."""
    hosts: Sequence[str] = ()
    """Public hosts, by which a given address is recognised; what comes before them counts as theirs."""
    paths: Sequence[str] = ()
    """What the path of an address has to hold, one of them; any will do where there is none."""
    auth: Auth = Auth.BEARER
    query: Mapping[str, str] = field(default_factory=dict)
    """Parameters of each request to an address whose path holds `query_in`."""
    query_in: str = ""
    limit_parameter: str | None = "max_tokens"
    """What the longest answer is called, None where it is not taken."""
    min_temperature: float = 0.0
    max_temperature: float = 2.0
    counts_usage: bool = True
    """Whether it takes `stream_options.include_usage`."""
    usage_in: Sequence[str] = ()
    """Where counts stand beside the top of an event: a member of it, or `choices` for the first choice."""
    thinking: Thinking = Thinking()
    extra: Body = field(default_factory=dict)
    """Optional members of each request."""
    codes: Mapping[str, Kind] = field(default_factory=dict)
    """What its own error codes mean, in lower case: whole if they are numbers, else as they begin."""
    errors_in: Sequence[str] = ()
    """Members that an error may hide in beside the usual ones, with a `status_code` that is not 0."""
    moderation_in: Sequence[str] = ()
    """Members of an error's `metadata` that are there if what was said is unsafe, where no code tells."""
    flags: Mapping[str, Collection[bool | int]] = field(default_factory=dict)
    """Members of an event or choice, and the values by which they say that what was said or answered is unsafe."""
    at_once: int | None = None
    """Calls that it takes at a time, None for no known limit."""
    transcription: TranscriptionRoute | None = None
    speech: SpeechRoute | None = None
    models: Sequence[str] = ()
    """Examples, for the documentation alone: they age within months."""
    note: str = ""
    """What an operator should know, in a sentence or two of English."""

    @property
    def refusals(self) -> Refusals:
        """How it says no."""
        return Refusals(codes=self.codes, errors_in=self.errors_in, moderation_in=self.moderation_in, flags=self.flags)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A vendor as somebody may use it: the kind with all overrides, the address (whole, repaired) and the key."""

    vendor: Vendor
    base_url: str
    api_key: str = field(default="", repr=False)

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters that go with every request to this address."""
        return self.vendor.query if self.vendor.query_in in self.base_url else {}
