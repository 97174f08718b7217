"""The reference of all settings, made from the code; it names them and never knows a value that somebody set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from chatassist.settings import PREFIX, Settings
from chatassist.settings.vendors import Overrides

_HEAD = """\
# Settings

Every variable that the service reads, from the environment or from a file `.env`; what is empty has its default.
Times are in seconds, lists are separated by commas. `chatassist doctor` tries what they lead to.

This page is what `chatassist settings --markdown` prints; a test keeps it so.
"""
_TYPES: dict[Any, str] = {
    bool: "`true` or `false`",
    int: "whole number",
    float: "number",
    str: "text",
    SecretStr: "secret",
    Overrides: "JSON object",
}
_BORDERS = (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One line of the reference."""

    name: str
    kind: str
    default: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Variables that belong together."""

    title: str
    variables: Sequence[Variable]


def sections() -> Iterator[Section]:
    """Yield every setting, in the order of the code; those of no section first."""
    fields = Settings.model_fields
    alone = [_variable(PREFIX, name, info) for name, info in fields.items() if _model_of(info) is None]
    yield Section(title="The service as a whole", variables=alone)
    for name, info in fields.items():
        model = _model_of(info)
        if model:
            prefix = f"{PREFIX}{name.upper()}__"
            inner = [_variable(prefix, each, found) for each, found in model.model_fields.items()]
            yield Section(title=(model.__doc__ or name).partition(".")[0], variables=inner)


def as_markdown() -> str:
    """Return docs/settings.md."""
    lines = [_HEAD]
    for section in sections():
        lines += [f"## {section.title}\n", "| variable | type | default | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{each.name}` | {each.kind} | {_code(each.default)} | {each.description} |"
            for each in section.variables
        ]
        lines.append("")
    return "\n".join(lines)


def as_text() -> str:
    """Return the same for a terminal."""
    lines: list[str] = []
    for section in sections():
        lines.append(f"{section.title}\n")
        for each in section.variables:
            default = f", default {each.default}" if each.default else ""
            lines += [f"  {each.name}", f"      {each.description}", f"      {each.kind}{default}".replace("`", "")]
        lines.append("")
    return "\n".join(lines)


def _code(text: str) -> str:
    return f"`{text}`" if text else "–"


def _variable(prefix: str, name: str, info: FieldInfo) -> Variable:
    return Variable(
        name=f"{prefix}{name.upper()}",
        kind=_kind(info),
        default=_default(info.default),
        description=info.description or "",
    )


def _kind(info: FieldInfo) -> str:
    """Return the type in words, with the choices or borders that it has."""
    annotation = info.annotation
    if get_origin(annotation) is UnionType or NoneType in get_args(annotation):
        annotation = next(each for each in get_args(annotation) if each is not NoneType)
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is tuple:
        return "list"
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return " or ".join(f"`{choice.value}`" for choice in annotation)
    borders = [
        f"{word} {getattr(one, name):,}" for name, word in _BORDERS for one in info.metadata if hasattr(one, name)
    ]
    return " ".join([_TYPES[annotation], *borders])


def _default(value: object) -> str:
    if value is None or value == () or isinstance(value, SecretStr):
        return ""
    return str(value)


def _model_of(info: FieldInfo) -> type[BaseModel] | None:
    """Return the section that a field is, or None."""
    kind = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
