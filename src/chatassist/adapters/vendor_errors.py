"""What AI vendors refuse with, sorted into a few kinds: by a vendor's own codes, by common ones, by HTTP statuses.

Nothing of a vendor's body ever reaches a message of ours: it may hold the key, or the user's words.
"""

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import StrEnum

_MAX_RETRY_AFTER = 120.0  # seconds
_LAYERS = 8  # of one error body that are looked at


class Kind(StrEnum):
    """What a refusal means for us: the classes that each have a treatment of their own."""

    AUTH = "the key was refused"
    CONFIGURATION = "the model or address was refused"
    BILLING = "the account is unpaid"
    RATE = "the vendor limits us"
    OVERLOAD = "the vendor is overloaded"
    UNSAFE_INPUT = "what was said was refused"
    UNSAFE_OUTPUT = "what was answered was refused"
    TOO_LONG = "the prompt is too long"
    PARAMETER = "a parameter was refused"
    FAULT = "the vendor failed"


# How a code or type begins, in lower case, with more than one vendor or gateway; an earlier kind wins.
_CODES: Mapping[Kind, tuple[str, ...]] = {
    Kind.UNSAFE_OUTPUT: ("outputtextriskdetection", "outputtextsensitivecontentdetected"),
    Kind.UNSAFE_INPUT: (
        *("content_filter", "content_policy_violation", "responsibleaipolicyviolation", "unsafe_request"),
        *("data_inspection_failed", "datainspectionfailed"),
        *("inputtextriskdetection", "inputtextsensitivecontentdetected", "sensitivecontentdetected"),
    ),
    Kind.BILLING: (
        *("insufficient_quota", "insufficient_user_quota", "insufficient_balance", "exceeded_current_quota"),
        *("arrearage", "accountoverdue", "billing_hard_limit", "billing_not_active"),
    ),
    Kind.TOO_LONG: ("context_length_exceeded", "tokens_too_long", "characters_too_long"),
    Kind.AUTH: (
        *("invalid_api_key", "incorrect_api_key", "invalidapikey", "invalid_authentication", "authentication"),
        "invalid_iam_token",
    ),
    Kind.CONFIGURATION: (
        *("access_denied", "accessdenied", "permission_denied"),
        *("model_not_found", "deploymentnotfound", "invalidendpointormodel", "resource_not_found"),
    ),
    Kind.RATE: ("rate_limit", "ratelimit", "rpm_rate_limit", "tpm_rate_limit", "throttling", "slow_down"),
    Kind.OVERLOAD: (
        *("overloaded", "engine_overloaded", "server_is_overloaded", "server_overloaded", "serveroverloaded"),
        "capacity_exceeded",
    ),
    Kind.PARAMETER: (
        *("missingparameter", "missing_parameter", "invalidparameter", "invalid_parameter", "unsupported_parameter"),
        *("unknown_parameter", "unsupported_value", "malformed_json"),
    ),
}

# These put their cause, with its code, into the message alone.
_GATEWAYS = ("one_api_error", "new_api_error", "upstream_error")

# Kimi, MiniMax, older vLLM and most gateways say it in words alone.
_TOO_LONG_PHRASES = ("context length", "context window", "token limit", "prompt is too long", "range of input length")
_TOO_LONG_STATUSES = frozenset({200, 400, 413, 422})

_STATUSES: Mapping[int, Kind] = {
    400: Kind.PARAMETER,
    401: Kind.AUTH,
    402: Kind.BILLING,
    408: Kind.FAULT,
    409: Kind.FAULT,
    413: Kind.TOO_LONG,
    422: Kind.PARAMETER,
    424: Kind.FAULT,
    425: Kind.FAULT,
    429: Kind.RATE,
    498: Kind.OVERLOAD,  # Groq: capacity exceeded
    499: Kind.FAULT,
    503: Kind.OVERLOAD,
    529: Kind.OVERLOAD,
}

_WORDS = {
    403: "the key may not use this model or address",
    404: "there is no such model or address",
}
"""What a refusal by configuration most likely means, for the operator."""


class Refused(Exception):
    """A vendor said no. Stays among the adapters: each port has errors of its own for the kinds."""

    def __init__(self, kind: Kind, *, status: int, retry_after: float | None = None) -> None:
        super().__init__(f"HTTP {status}: {_WORDS.get(status, kind) if kind is Kind.CONFIGURATION else kind}")
        self.kind = kind
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """How one vendor says no: what is its own, on top of what many have in common. The fields are those of Vendor."""

    codes: Mapping[str, Kind] = field(default_factory=dict)
    errors_in: Sequence[str] = ()
    moderation_in: Sequence[str] = ()
    flags: Mapping[str, Collection[bool | int]] = field(default_factory=dict)

    def of(self, status: int, body: bytes, headers: Mapping[str, str]) -> Refused:
        """Sort an answer that is no success; its body may be anything. Header names in lower case."""
        try:
            document: object = json.loads(body)
        except (ValueError, RecursionError):  # HTML, plain text, nothing, or worse
            document = body.decode(errors="replace")
        kind = self._kind(status, document)
        wait = retry_after(headers) if kind in (Kind.RATE, Kind.OVERLOAD) else None
        return Refused(kind, status=status, retry_after=wait)

    def within(self, document: Mapping[str, object]) -> Refused | None:
        """Find the refusal in a document that came with HTTP 200; None if it is none."""
        if not (document.get("error") or self._failed(document) or (not document.get("choices") and _bare(document))):
            return None
        # OpenRouter and vLLM put the HTTP status there.
        inner = next((int(code) for code in _codes(document) if re.fullmatch("[45][0-9][0-9]", code)), 200)
        return Refused(self._kind(inner, document), status=inner)

    def flagged(self, holder: Mapping[str, object]) -> Refused | None:
        """Find the refusal that a flag of an event, or of its choice, means; None if there is none."""
        for name, values in self.flags.items():
            value = holder.get(name)
            if isinstance(value, int) and value in values:
                kind = Kind.UNSAFE_INPUT if name.startswith("input") else Kind.UNSAFE_OUTPUT
                return Refused(kind, status=200)
        return None

    def _failed(self, document: Mapping[str, object]) -> bool:
        for name in self.errors_in:
            inner = document.get(name)
            if isinstance(inner, dict) and inner.get("status_code") not in (None, 0, "0"):
                return True
        return False

    def _kind(self, status: int, document: object) -> Kind:
        codes = tuple(_codes(document))
        kind = self._own(codes) or self._moderated(document) or _common(status, codes, document)
        # What is refused as a parameter may well be the prompt's length, which is said in words alone.
        too_long = kind is Kind.PARAMETER and status in _TOO_LONG_STATUSES and _says_too_long(document)
        return Kind.TOO_LONG if too_long else kind

    def _moderated(self, document: object) -> Kind | None:
        told = (layer.get("metadata") for layer in _layers(document))
        found = any(isinstance(each, dict) and any(map(each.get, self.moderation_in)) for each in told)
        return Kind.UNSAFE_INPUT if found else None

    def _own(self, codes: Iterable[str]) -> Kind | None:
        for code in codes:
            if code in self.codes:
                return self.codes[code]
            for beginning, kind in self.codes.items():
                if code.startswith(beginning) and not beginning.isdigit():
                    return kind
        return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a vendor asks us to wait, at most 120; None if it says nothing that makes sense."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        seconds = _seconds(headers.get(name, ""), headers.get("date", ""))
        if seconds is not None:
            return min(seconds * unit, _MAX_RETRY_AFTER)
    return None


def _seconds(value: str, now: str) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        try:
            # Against the vendor's own clock: RFC 9110 has every origin that has one send Date.
            seconds = parsedate_to_datetime(value).timestamp() - parsedate_to_datetime(now).timestamp()
        except (ValueError, OverflowError, OSError):
            return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _common(status: int, codes: Sequence[str], document: object) -> Kind:
    if status == 401:  # whatever else it says
        return Kind.AUTH
    if kind := _named(codes, document):
        return kind
    if status in _TOO_LONG_STATUSES and _says_too_long(document):
        return Kind.TOO_LONG
    if status in _STATUSES:
        return _STATUSES[status]
    return Kind.CONFIGURATION if 300 <= status <= 499 else Kind.FAULT  # a redirect is a wrong address


def _named(codes: Sequence[str], document: object) -> Kind | None:
    message = _message(document) if any(code.startswith(_GATEWAYS) for code in codes) else ""
    for kind, beginnings in _CODES.items():
        if any(code.startswith(beginnings) for code in codes) or any(name in message for name in beginnings):
            return kind
    return None


def _says_too_long(document: object) -> bool:
    message = _message(document)
    return any(phrase in message for phrase in _TOO_LONG_PHRASES)


def _bare(document: Mapping[str, object]) -> bool:
    """Tell whether a document is an error by itself: vLLM's, or Qianfan's and SiliconFlow's with a code at the top."""
    if document.get("object") == "error":
        return True
    said = ("message", "msg", "error_msg")
    return bool(document.get("code") or document.get("error_code")) and any(name in document for name in said)


def _codes(document: object) -> Iterator[str]:
    for layer in _layers(document):
        for name in ("code", "type", "status_code", "error_code"):
            value = layer.get(name)
            if isinstance(value, (str, int)):
                yield str(value).lower()


def _message(document: object) -> str:
    """Join all the places where vendors and gateways put their sentence (one-api looks at the same ones)."""
    if isinstance(document, str):
        return document.lower()
    names = ("message", "msg", "err", "error_msg", "status_msg", "error")
    found = [layer.get(name) for layer in _layers(document) for name in names]
    return " ".join(text for text in found if isinstance(text, str)).lower()


def _layers(document: object) -> list[Mapping[str, object]]:
    if isinstance(document, list):
        document = next(iter(document), None)
    layers: list[Mapping[str, object]] = [document] if isinstance(document, dict) else []
    for layer in layers:  # grows while it is walked
        inner = (layer.get(name) for name in ("error", "base_resp", "header", "response", "innererror"))
        layers += [part for part in inner if isinstance(part, dict)][: _LAYERS - len(layers)]
    return layers
