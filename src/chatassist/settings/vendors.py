"""AI vendors as an operator writes them: the rows of the vendors file, and what may be said otherwise of any vendor.

Whether a kind exists, and what it needs, is not known here. Sentences name rows and keys, never a value.
"""

import json
import os
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from dotenv import dotenv_values
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from chatassist.settings.kinds import ModelName, matching

ENV_FILE = Path(".env")
_OTHER_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is no key that is known here",
    "too_short": "must not be empty",
    "model_type": "should be a table of keys and values",
    "sequence_str": "should be a list",
}
_KEY_OF_API = "is no key that is known here: api_key_env names the variable that holds the key"
_OURS = frozenset({"messages", "model", "stream"})
_MAX_KEY = 40  # characters of what is repeated: longer is no misspelt key, but a secret in the wrong place

VendorName = Annotated[str, AfterValidator(matching(r"[\w.-]{1,40}", "must be 1 to 40 letters, digits, '.', '_', '-'"))]
ModelTitle = Annotated[str, AfterValidator(matching(r"\S[^\x00-\x1f]{0,59}", "must be 1 to 60 characters"))]
VariableName = Annotated[str, AfterValidator(matching(r"[A-Za-z_]\w{0,99}", "must be the name of a variable"))]
Parameter = Annotated[str, AfterValidator(matching(r"\w{0,100}", "must be the name of a parameter, or empty"))]
Word = Annotated[str, AfterValidator(matching(r"\S{1,200}", "must be a word"))]


def _sendable(members: Mapping[str, object]) -> Mapping[str, object]:
    try:
        json.dumps(members, allow_nan=False)
    except (TypeError, ValueError):  # dates, nan and inf are values of TOML
        raise ValueError("must hold what JSON can hold") from None
    if not _OURS.isdisjoint(members):
        raise ValueError(f"must not hold {', '.join(sorted(_OURS))}: those are this service's")
    return members


Members = Annotated[Mapping[str, object], AfterValidator(_sendable)]
"""Of a request's JSON body."""


class _Strict(BaseModel):
    """What is written wrong is refused, instead of left out or read as something else."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class TranscriptionOverrides(_Strict):
    """A vendor's speech to text, said otherwise, or at all."""

    model: Word | None = None
    style: Literal["openai", "chat"] | None = None
    hints: bool | None = None
    max_seconds: float | None = Field(default=None, ge=1)


class SpeechOverrides(_Strict):
    """A vendor's text to speech, said otherwise, or at all."""

    model: Word | None = None
    voice: Word | None = None
    format: Word | None = None
    max_chars: int | None = Field(default=None, ge=1)


class Overrides(_Strict):
    """What may be said otherwise of a vendor; what is None stays as the catalogue has it.

    `limit_parameter`: empty where none is taken; `at_once`: 0 is no limit; `query` and `codes` add to the catalogue's.
    """

    auth: Literal["bearer", "api_key", "none"] | None = None
    paths: Sequence[Word] | None = None
    query: Mapping[str, str] | None = None
    query_in: str | None = None
    limit_parameter: Parameter | None = None
    min_temperature: float | None = Field(default=None, ge=0, le=2)
    max_temperature: float | None = Field(default=None, ge=0, le=2)
    counts_usage: bool | None = None
    usage_in: Sequence[Word] | None = None
    thinking_on: Members | None = None
    thinking_off: Members | None = None
    thinking_fields: Sequence[Word] | None = None
    extra: Members | None = None
    codes: Mapping[str, Word] | None = None
    errors_in: Sequence[Word] | None = None
    moderation_in: Sequence[Word] | None = None
    flags: Mapping[str, Sequence[bool | int]] | None = None
    at_once: int | None = Field(default=None, ge=0)
    transcription: TranscriptionOverrides | None = None
    speech: SpeechOverrides | None = None


class ModelRow(_Strict):
    """A model. `id`: what clients name, and the vendor too unless `upstream` says what the vendor calls it."""

    id: ModelName
    name: ModelTitle | None = None
    public: bool = True
    default: bool = False
    upstream: ModelName | None = None


class VendorRow(Overrides):
    """A vendor of the file. `name`: by default its kind; `thinking`: by default the vendor's own way."""

    kind: Word
    name: VendorName | None = None
    base_url: str | None = Field(default=None, min_length=1)
    api_key_env: VariableName | None = None
    thinking: bool | None = None
    models: Sequence[ModelRow] = Field(min_length=1)

    @model_validator(mode="after")
    def _models_differ(self) -> Self:
        ids = [model.id for model in self.models]
        if len(set(ids)) < len(ids):
            raise ValueError("models hold the same id twice")
        if sum(model.default for model in self.models) > 1:
            raise ValueError("models hold more than one default")
        return self

    @property
    def called(self) -> str:
        """What the vendor is called by the operator."""
        return self.name or self.kind


class _File(_Strict):
    vendor: Sequence[VendorRow] = Field(min_length=1)


def read_vendors_file(path: str, kinds: Collection[str] = ()) -> Sequence[VendorRow]:
    """Return the rows of a vendors file. Raises ValueError with a sentence, less its full stop, for the first fault.

    `kinds`: those that there are, and that a sentence may so name; a key may have been written in their place.
    """
    document = _document(path)
    try:
        rows = _File.model_validate(document).vendor
    except ValidationError as error:
        raise ValueError(_sentence(_faults(error)[0], document, kinds)) from None
    names = [row.called for row in rows]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ValueError(f"{_row(document, place, kinds)}: an earlier row has this name too, so `name` is needed")
    return rows


def key_variables(path: str | None) -> Collection[str]:
    """Return the variables that a vendors file names; none where it cannot be read, which others tell."""
    try:
        rows = read_vendors_file(path) if path else ()
    except ValueError:
        rows = ()
    return {row.api_key_env for row in rows if row.api_key_env}


def read_overrides(value: object) -> object:
    """Return overrides as they were given, in JSON or not. Raises ValueError with a sentence that names the key."""
    if value is None or isinstance(value, Overrides):
        return value
    try:
        given = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, Mapping):
        raise ValueError("must be a JSON object")  # noqa: TRY004 - pydantic makes a sentence of no other
    if "api_key" in given:
        raise ValueError("`api_key` is no key that is known here: it is a setting of its own")
    try:
        return Overrides.model_validate(given)
    except ValidationError as error:
        fault = _faults(error)[0]
        raise ValueError(f"{_path(fault)} {_words(fault)}") from None


def looked_up(name: str, env_file: Path = ENV_FILE) -> str:
    """Return a variable where settings are read too: the environment, then `.env`. What is empty counts as not set."""
    return os.environ.get(name) or (env_file.is_file() and dotenv_values(env_file).get(name)) or ""


def _document(path: str) -> Mapping[str, object]:
    try:
        return tomllib.loads(Path(path).expanduser().read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"line \d+, column \d+", str(error))  # the rest may quote what stands there
        raise ValueError(f"it is no TOML{f', at {place[0]}' if place else ''}") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from None
    except (ValueError, RuntimeError):  # a path with a zero byte; of nobody's home; arrays in arrays in arrays
        raise ValueError("it cannot be read") from None


def _faults(error: ValidationError) -> Sequence[ErrorDetails]:
    return error.errors(include_input=False, include_url=False, include_context=False)


def _sentence(fault: ErrorDetails, document: Mapping[str, object], kinds: Collection[str]) -> str:
    match fault["loc"]:
        case ("vendor", int(place)):
            return f"{_row(document, place, kinds)}: {_words(fault)}"
        case ("vendor", int(place), *keys):
            return f"{_row(document, place, kinds)}: {_path({**fault, 'loc': tuple(keys)})} {_words(fault)}"
        case ("vendor",):
            return "it holds no [[vendor]] row"
        case _:
            return f"{_path(fault)} {_words(fault)}"


def _row(document: Mapping[str, object], place: int, kinds: Collection[str]) -> str:
    """Return which row it is, by number, and by name where what stands there can be one, or is a kind."""
    rows = document["vendor"]
    row = rows[place] if isinstance(rows, Sequence) else None
    name, kind = (row.get("name"), row.get("kind")) if isinstance(row, Mapping) else (None, None)
    given = name or (kind if isinstance(kind, str) and kind in kinds else None)
    named = isinstance(given, str) and re.fullmatch(r"[\w.-]{1,40}", given)
    return f"vendor {place + 1} ({given})" if named else f"vendor {place + 1}"


def _path(fault: ErrorDetails) -> str:
    """Return the key as it is reached, with places in lists counted from 1, and … for what can be no key."""
    parts = (str(part + 1) if isinstance(part, int) else part for part in fault["loc"])
    return f"`{'.'.join(part if part.isprintable() and len(part) <= _MAX_KEY else '…' for part in parts)}`"


def _words(fault: ErrorDetails) -> str:
    if fault["type"] == "extra_forbidden" and fault["loc"][-1] == "api_key":
        return _KEY_OF_API
    said = _OTHER_WORDS.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")
    return re.sub(r"^(Input|String|List|Dictionary|Tuple) (?=should)", "", said)
