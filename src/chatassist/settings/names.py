"""The names of all variables, as the code declares them; knows no value that somebody set."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import BaseModel

from chatassist.settings import PREFIX, Settings


def unknown_variables(
    environment: Mapping[str, str] = os.environ, env_file: Path = Path(".env"), *, keys: Collection[str] = ()
) -> Sequence[str]:
    """Return names that look like ours and that nothing reads: most likely misspelt. Tests' own are left out.

    `keys`: variables that a vendors file names.
    """
    present = {*environment, *(dotenv_values(env_file) if env_file.is_file() else ())}
    ours = {name.upper() for name in present if name.upper().startswith(PREFIX)}
    return sorted(
        name for name in ours - {*variables(), *(key.upper() for key in keys)} if not name.startswith(f"{PREFIX}TEST_")
    )


def variables(model: type[BaseModel] = Settings, prefix: str = PREFIX) -> Sequence[str]:
    """Return the name of every variable that is read."""
    names: list[str] = []
    for name, info in model.model_fields.items():
        kind: Any = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += variables(kind, f"{prefix}{name.upper()}__")
        else:
            names.append(f"{prefix}{name.upper()}")
    return names
