"""What AI vendors refuse with, sorted into a few kinds: one table of codes, one of statuses.

Nothing of a vendor's body ever reaches a message of ours: it may hold the key, or the user's words.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from enum import StrEnum

_MAX_RETRY_AFTER = 120.0  # seconds
_LAYERS = 8  # of one error body that are looked at


class Kind(StrEnum):
    """What a refusal means for us."""

    UNSAFE = "the content was refused"
    BILLING = "the account is unpaid"
    TOO_LONG = "the prompt is too long"
    CONFIGURATION = "key, model or address was refused"
    OVERLOAD = "the vendor limits us or is overloaded"
    PARAMETER = "a parameter was refused"
    FAULT = "the vendor failed"


# How a code or type begins, in lower case; an earlier kind wins.
_CODES: dict[Kind, tuple[str, ...]] = {
    Kind.UNSAFE: (
        *("content_filter", "data_inspection_failed", "datainspectionfailed", "unsafe_request"),
        *("inputtextriskdetection", "outputtextriskdetection", "sensitivecontentdetected"),
    ),
    Kind.BILLING: (
        *("insufficient_quota", "insufficient_user_quota", "exceeded_current_quota", "arrearage", "accountoverdue"),
    ),
    Kind.TOO_LONG: ("context_length_exceeded", "tokens_too_long", "characters_too_long"),
    Kind.CONFIGURATION: (
        *("invalid_api_key", "incorrect_api_key", "invalid_authentication", "authentication", "invalid_iam_token"),
        *("access_denied", "model_not_found", "invalid_model", "deploymentnotfound", "invalidendpointormodel"),
    ),
    Kind.OVERLOAD: (
        *("rate_limit", "ratelimit", "rpm_rate_limit", "tpm_rate_limit", "throttling", "slow_down"),
        *("overloaded", "engine_overloaded", "server_is_overloaded", "capacity_exceeded"),
    ),
    Kind.PARAMETER: ("missingparameter", "invalidparameter", "malformed_json"),
}

# Whole numbers: Zhipu's, and MiniMax's 1002, 1004, 1008, 1026, 1027, 1039 and 2013.
_NUMBERS: dict[str, Kind] = {
    **dict.fromkeys(("1026", "1027", "1301"), Kind.UNSAFE),
    **dict.fromkeys(("1008", "1113"), Kind.BILLING),
    **dict.fromkeys(("1039", "1261"), Kind.TOO_LONG),
    **dict.fromkeys(("1004", "1112", "1121", "1211"), Kind.CONFIGURATION),
    **dict.fromkeys(("1002", "1302", "1303", "1304", "1305", "1308", "1310", "1312", "1313"), Kind.OVERLOAD),
    **dict.fromkeys(("1210", "1213", "1214", "1215", "2013"), Kind.PARAMETER),
}

# Kimi, older vLLM and most gateways say it in words alone.
_TOO_LONG_PHRASES = ("context length", "context window", "token limit", "prompt is too long", "range of input length")
_TOO_LONG_STATUSES = frozenset({200, 400, 413, 422})

_STATUSES: dict[int, Kind] = {
    400: Kind.PARAMETER,
    402: Kind.BILLING,
    408: Kind.FAULT,
    409: Kind.FAULT,
    413: Kind.TOO_LONG,
    422: Kind.PARAMETER,
    424: Kind.FAULT,
    425: Kind.FAULT,
    429: Kind.OVERLOAD,
    498: Kind.OVERLOAD,  # Groq: capacity exceeded
    499: Kind.FAULT,
    503: Kind.OVERLOAD,
    529: Kind.OVERLOAD,
}


_WORDS = {
    401: "the key was refused",
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


def refusal(status: int, body: bytes, headers: Mapping[str, str]) -> Refused:
    """Sort an answer that is no success; its body may be anything. Header names in lower case."""
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError):  # HTML, plain text, nothing, or worse
        document = body.decode(errors="replace")
    kind = _kind(status, document)
    return Refused(kind, status=status, retry_after=retry_after(headers) if kind is Kind.OVERLOAD else None)


def refusal_within(document: Mapping[str, object]) -> Refused | None:
    """Find the refusal in a document that came with HTTP 200; None if it is none."""
    base = document.get("base_resp")  # MiniMax sends it with every answer: 0 is success
    failed = isinstance(base, dict) and base.get("status_code") not in (None, 0)
    # Qianfan and SiliconFlow put code and message at the top.
    bare = "choices" not in document and document.get("code") and ("message" in document or "msg" in document)
    if not (document.get("error") or document.get("object") == "error" or failed or bare):
        return None
    # OpenRouter and vLLM put the HTTP status there.
    inner = next((int(code) for code in _codes(document) if re.fullmatch("[45][0-9][0-9]", code)), 200)
    return Refused(_kind(inner, document), status=inner)


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


def _kind(status: int, document: object) -> Kind:
    if status == 401:  # whatever else it says: Zhipu's 1002 means the key, MiniMax's (with 200) the rate
        return Kind.CONFIGURATION
    codes = tuple(_codes(document))
    for code in codes:
        if code in _NUMBERS:
            return _NUMBERS[code]
    for kind, beginnings in _CODES.items():
        if any(code.startswith(beginnings) for code in codes):
            return kind
    if status in _TOO_LONG_STATUSES and any(phrase in _message(document) for phrase in _TOO_LONG_PHRASES):
        return Kind.TOO_LONG
    if status in _STATUSES:
        return _STATUSES[status]
    return Kind.CONFIGURATION if 300 <= status <= 499 else Kind.FAULT  # a redirect is a wrong address


def _codes(document: object) -> Iterator[str]:
    for layer in _layers(document):
        for name in ("code", "type", "status_code"):
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
