"""`chatassist settings`: the reference of all variables, made from the code, and its copy in docs."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from chatassist.entrypoints.cli import app
from chatassist.entrypoints.reference import sections
from chatassist.settings.names import variables

ROOT = Path(__file__).parents[2]


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["settings", *arguments])
    assert result.exit_code == 0
    return result.output


def test_the_page_is_what_the_command_prints() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == shown("--markdown"), "run: chatassist settings --markdown > docs/settings.md"


def test_every_variable_is_there_once_with_a_description() -> None:
    listed = [variable for section in sections() for variable in section.variables]
    assert sorted(variable.name for variable in listed) == sorted(variables())
    assert [variable.name for variable in listed if not variable.description] == []
    assert all("|" not in variable.description + variable.default for variable in listed), "it would break the table"


def test_types_choices_borders_and_secrets_are_told() -> None:
    kinds = {variable.name: variable.kind for section in sections() for variable in section.variables}
    assert kinds["CHATASSIST_ENV"] == "`development` or `production`"
    assert kinds["CHATASSIST_HTTP__PORT"] == "whole number from 0 to 65,535"
    assert kinds["CHATASSIST_HTTP__DOCS"] == "`true` or `false`"
    assert kinds["CHATASSIST_HTTP__CORS_ORIGINS"] == "list"
    assert kinds["CHATASSIST_LLM__DEADLINE"] == "number above 0 to 86,400"
    assert {name for name, kind in kinds.items() if kind == "secret"} >= {
        "CHATASSIST_TOKEN__SECRET",
        "CHATASSIST_LLM__API_KEY",
        "CHATASSIST_DATABASE__PASSWORD",
    }


def test_nothing_that_is_set_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    before = shown()
    for name in variables():
        monkeypatch.setenv(name, "a-private-value")
    assert shown() == before, "not even settings that make no sense matter"
    assert all(name in before for name in variables())


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_page_and_the_doctor_are_found_from_the_readmes(readme: str) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    assert "(docs/settings.md)" in text
    assert "chatassist doctor" in text
