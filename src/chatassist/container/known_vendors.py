"""The catalogue of AI vendors, in words for an operator."""

from collections.abc import Iterator, Mapping, Sequence

from chatassist.adapters.catalogue import CATALOGUE
from chatassist.adapters.vendor import Auth, Vendor

_KEYS: Mapping[Auth, str] = {
    Auth.BEARER: "Authorization: Bearer …",
    Auth.API_KEY: "api-key: …",
    Auth.NONE: "none needed",
}


def known_vendors() -> Sequence[Mapping[str, str]]:
    """Return a row for each kind of vendor; the last member, `variables`, is lines to copy into `.env`."""
    return [_row(vendor) for vendor in CATALOGUE.values()]


def _row(vendor: Vendor) -> Mapping[str, str]:
    hearing, speaking = vendor.transcription, vendor.speech
    return {
        "name": vendor.name,
        "vendor": vendor.title,
        "address": vendor.base_url or "yours",
        "key": _KEYS[vendor.auth],
        "models, for example": ", ".join(vendor.models),
        "speech to text": "" if hearing is None else hearing.model or "yours",
        "text to speech": "" if speaking is None else speaking.model or "yours",
        "notes": vendor.note,
        "variables": "\n".join(_variables(vendor)),
    }


def _variables(vendor: Vendor) -> Iterator[str]:
    yield f"CHATASSIST_LLM__VENDOR={vendor.name}"
    if vendor.base_url is None:
        yield "CHATASSIST_LLM__BASE_URL=…"
    if vendor.auth is not Auth.NONE:
        yield "CHATASSIST_LLM__API_KEY=…"
    yield f"CHATASSIST_LLM__MODEL={vendor.models[0] if vendor.models else '…'}"
