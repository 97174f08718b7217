"""`chatassist vendors`, and docs/vendors.md: what it shows is what works."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chatassist.adapters.catalogue import CATALOGUE
from chatassist.adapters.vendor_errors import Kind
from chatassist.container.vendors import offers_of, title_model_of, vendors_of
from chatassist.entrypoints.cli import app
from chatassist.settings import PREFIX, Settings
from chatassist.settings.vendors import Overrides

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "vendors.md").read_text(encoding="utf-8")
KEY = "sk-0123456789abcdef"


def _blocks(page: str) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)


SHELL = _blocks(PAGE)


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["vendors", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_page_holds_what_the_command_prints() -> None:
    assert shown("--markdown") in PAGE, "put the output of `chatassist vendors --markdown` into docs/vendors.md"


def test_every_vendor_has_one_line_that_says_all_about_it() -> None:
    head, *lines = shown().splitlines()
    assert head.split()[0] == "name"
    assert [line.split()[0] for line in lines] == list(CATALOGUE)
    for line, vendor in zip(lines, CATALOGUE.values(), strict=True):
        told = (vendor.title, vendor.base_url or "yours", ", ".join(vendor.models), vendor.note)
        assert all(part in line for part in told)


@pytest.mark.parametrize("kind", CATALOGUE)
def test_the_variables_of_a_vendor_work_as_they_stand(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Copied into `.env`, with what only the operator knows put in."""
    monkeypatch.chdir(tmp_path)
    (block,) = [block for block in _blocks(shown("--markdown")) if f"LLM__VENDOR={kind}\n" in block]
    filled = block.replace("BASE_URL=…", "BASE_URL=https://own.openai.azure.com/openai/v1")
    filled = filled.replace("API_KEY=…", f"API_KEY={KEY}").replace("MODEL=…", "MODEL=own-model")
    assert "…" not in filled
    (tmp_path / ".env").write_text(filled, encoding="utf-8")
    (vendor,) = vendors_of(Settings())
    assert vendor.name == kind


def test_the_first_block_is_enough_to_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(SHELL[0].replace("…", KEY))
    (vendor,) = vendors_of(Settings())
    assert (vendor.name, vendor.access.api_key) == ("deepseek", KEY)


def test_the_example_file_loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"<!-- example: vendors.toml -->\n```toml\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "vendors.toml").write_text(example, encoding="utf-8")
    named = set(re.findall(r'api_key_env = "(\w+)"', example))
    (tmp_path / ".env").write_text("".join(f"{name}={KEY}\n" for name in named))
    monkeypatch.setenv(f"{PREFIX}LLM__VENDORS_FILE", "vendors.toml")
    monkeypatch.setenv(f"{PREFIX}LLM__TITLE_MODEL", "qwen-flash")
    settings = Settings()
    vendors = vendors_of(settings)
    assert [vendor.name for vendor in vendors] == ["deepseek", "qwen-singapore", "own-server"]
    assert [offer.model for offer in offers_of(settings, vendors)] == [
        "deepseek-v4-flash",
        "deepseek-v4-pro",
        "qwen-plus",
    ]
    assert title_model_of(settings, vendors) == (vendors[1], "qwen-flash")


def test_the_example_of_overriding_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = [block for block in SHELL if "OVERRIDES" in block]
    (tmp_path / ".env").write_text(f"{SHELL[0].replace('…', KEY)}{block}", encoding="utf-8")
    (vendor,) = vendors_of(Settings())
    assert (vendor.kind.at_once, vendor.kind.query) == (20, {"api-version": "2024-10-21"})


def test_every_key_and_every_kind_of_refusal_is_explained() -> None:
    keys = set(re.findall(r"`(\w+)`", PAGE.partition("## Saying otherwise")[2]))
    assert set(Overrides.model_fields) <= keys
    assert {kind.name.lower() for kind in Kind} <= keys


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readmes_lead_here(readme: str) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    assert "(docs/vendors.md)" in text
    assert SHELL[0] in text
