"""The import contracts name rooms one by one; a room that nobody named would be unguarded."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "chatassist"


def contracts() -> list[dict[str, object]]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        found: list[dict[str, object]] = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    return found


def listed(name: str, field: str) -> set[str]:
    [contract] = [one for one in contracts() if one["name"] == name]
    modules = contract[field]
    assert isinstance(modules, list)
    return set(modules)


def folders(parent: str) -> set[str]:
    inside = (path.parent.name for path in (SOURCE / parent).glob("*/__init__.py"))
    return {f"chatassist.{parent}.{name}" for name in inside}


def modules(parent: str) -> set[str]:
    found = (path.stem for path in (SOURCE / parent).glob("*.py"))
    return {f"chatassist.{parent.replace('/', '.')}.{name}" for name in found if name != "__init__"}


def test_every_adapter_folder_is_kept_from_its_siblings() -> None:
    assert listed("No adapter folder knows another", "modules") == folders("adapters")


def test_every_service_is_kept_from_the_others() -> None:
    assert listed("No service knows another", "modules") == modules("domain/services")


def test_only_the_room_of_databases_may_use_their_drivers() -> None:
    guarded = listed("Technologies stay in their rooms: databases", "source_modules")
    assert {name for name in guarded if ".adapters." in name} == folders("adapters") - {
        "chatassist.adapters.persistence"
    }


def test_no_adapter_folder_speaks_to_redis_but_through_the_link() -> None:
    guarded = listed("Technologies stay in their rooms: Redis, behind the link that adapters share", "source_modules")
    assert {name for name in guarded if ".adapters." in name} == folders("adapters")


@pytest.mark.parametrize("contract", contracts(), ids=lambda contract: str(contract["name"]))
def test_no_import_is_ever_excused(contract: dict[str, object]) -> None:
    assert not contract.get("ignore_imports")


def test_the_libraries_of_single_rooms_are_imported_nowhere_else() -> None:
    """dependency-injector in the container, SQLModel in the tables: import-linter sees packages, not files."""
    rooms = {"dependency_injector": {"container/wiring.py"}, "sqlmodel": {"adapters/persistence/tables.py"}}
    for library, allowed in rooms.items():
        using = {
            str(path.relative_to(SOURCE))
            for path in SOURCE.rglob("*.py")
            if f"import {library}" in (text := path.read_text(encoding="utf-8")) or f"from {library}" in text
        }
        assert using == allowed, library
