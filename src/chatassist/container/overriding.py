"""A row of the catalogue with what an operator says otherwise of it."""

from dataclasses import replace
from typing import Any

from chatassist.adapters.vendor import Auth, SpeechRoute, Thinking, TranscriptionRoute, TranscriptionStyle, Vendor
from chatassist.adapters.vendor_errors import Kind
from chatassist.settings.vendors import Overrides, SpeechOverrides, TranscriptionOverrides

_AS_THEY_ARE = (
    *("paths", "query_in", "min_temperature", "max_temperature", "counts_usage", "usage_in", "extra"),
    *("errors_in", "moderation_in", "flags"),
)


def overridden(vendor: Vendor, said: Overrides) -> Vendor:
    """Return the vendor as the operator has it. Raises ValueError with a sentence, less its full stop, naming a key."""
    changes: dict[str, Any] = {name: getattr(said, name) for name in _AS_THEY_ARE}
    changes["auth"] = Auth(said.auth) if said.auth else None
    changes["query"] = {**vendor.query, **said.query} if said.query else None
    changes["codes"] = {**vendor.codes, **{code.lower(): _kind(word) for code, word in (said.codes or {}).items()}}
    changes["thinking"] = _thinking(vendor.thinking, said)
    changes["transcription"] = _transcription(vendor.transcription, said.transcription)
    changes["speech"] = _speech(vendor.speech, said.speech)
    changed = replace(vendor, **{name: value for name, value in changes.items() if value is not None})
    if said.limit_parameter is not None:
        changed = replace(changed, limit_parameter=said.limit_parameter or None)
    if said.at_once is not None:
        changed = replace(changed, at_once=said.at_once or None)
    if changed.min_temperature > changed.max_temperature:
        raise ValueError("`max_temperature` is less than the lowest that is taken")
    return changed


def _kind(word: str) -> Kind:
    if word.upper() not in Kind.__members__:
        raise ValueError(f"`codes` has to mean one of {', '.join(name.lower() for name in Kind.__members__)}")
    return Kind[word.upper()]


def _thinking(own: Thinking, said: Overrides) -> Thinking:
    return Thinking(
        on=own.on if said.thinking_on is None else said.thinking_on,
        off=own.off if said.thinking_off is None else said.thinking_off,
        fields=own.fields if said.thinking_fields is None else said.thinking_fields,
    )


def _transcription(own: TranscriptionRoute | None, said: TranscriptionOverrides | None) -> TranscriptionRoute | None:
    if said is None:
        return own
    if own is None and said.model is None:
        raise ValueError("`transcription.model` is missing")
    changes = said.model_dump(exclude={"style"}, exclude_none=True)
    if said.style:
        changes["style"] = TranscriptionStyle(said.style)
    return replace(own or TranscriptionRoute(model=""), **changes)


def _speech(own: SpeechRoute | None, said: SpeechOverrides | None) -> SpeechRoute | None:
    if said is None:
        return own
    if own is None and (said.model is None or said.voice is None):
        raise ValueError("`speech.model` and `speech.voice` are both needed")
    return replace(own or SpeechRoute(model="", voice=""), **said.model_dump(exclude_none=True))
