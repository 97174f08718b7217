"""The command line, in this process; `serve` is tried as a process of its own elsewhere."""

from pathlib import Path

import pytest
from sqlalchemy import URL
from typer.testing import CliRunner, Result

from chatassist.entrypoints.cli import app
from tests.fixtures.service import SECRET


@pytest.fixture
def run(sqlite_url: URL, monkeypatch: pytest.MonkeyPatch) -> "Run":
    monkeypatch.setenv("CHATASSIST_DATABASE__URL", str(sqlite_url))
    monkeypatch.setenv("CHATASSIST_TOKEN__SECRET", SECRET)
    return Run()


class Run:
    def __call__(self, *arguments: str, typed: str = "") -> Result:
        return CliRunner().invoke(app, list(arguments), input=typed)


def test_chat_in_the_terminal_goes_on_where_it_ended(run: Run) -> None:
    first = run("chat", typed="第一句话是什么\n第二句话是什么\n\n")
    assert first.exit_code == 0, first.output
    assert "1 条消息" in first.output
    assert "3 条消息" in first.output, "the second turn has the first in its context"
    session = first.output.rpartition("--session ")[2].strip()
    second = run("chat", "--session", session, typed="第三句话是什么\n")
    assert "第一句话是什么" in second.output, "what was said before is shown"
    assert "5 条消息" in second.output


def test_chat_tells_what_is_refused_and_goes_on(run: Run) -> None:
    result = run("chat", typed=f"{'长' * 8001}\n好的好的\n\n")
    assert "Refused: content_too_long" in result.output
    assert "1 条消息" in result.output


def test_chat_in_an_unknown_session(run: Run) -> None:
    result = run("chat", "--session", "0" * 32)
    assert (result.exit_code, "session_not_found" in result.output) == (1, True)


def test_users_are_blocked_and_unblocked(run: Run) -> None:
    run("chat", typed="我来创建用户\n\n")
    import getpass

    openid = f"terminal:{getpass.getuser()}"
    assert "is blocked" in run("users", "block", openid).output
    assert "is not blocked" in run("users", "unblock", openid).output
    unknown = run("users", "block", "nobody")
    assert (unknown.exit_code, "no such user" in unknown.output) == (1, True)


def test_migrate_and_a_start_that_is_refused_before_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATASSIST_DATABASE__URL", f"sqlite+aiosqlite:///{tmp_path / 'new' / 'fresh.db'}")
    refused = run("chat")
    assert (refused.exit_code, "chatassist migrate" in refused.output) == (1, True)
    assert "up to date" in run("migrate").output
    assert "up to date" in run("migrate").output, "again is harmless"
    assert run("chat", typed="\n").exit_code == 0


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("LLM__OVERRIDES", "[]", "CHATASSIST_LLM__OVERRIDES: must be a JSON object"),
        (
            "LLM__MODEL",
            "m" * 129,
            "CHATASSIST_LLM__MODEL: must be 1 to 128 characters that can be seen, without blanks",
        ),
        ("LLM__API_KEY", "k", "CHATASSIST_LLM__MODEL is needed for an AI vendor"),
        (
            "LLM__VENDORS_FILE",
            "~nobody-is-called-so/v.toml",
            "CHATASSIST_LLM__VENDORS_FILE will not do: it cannot be read.",
        ),
    ],
)
def test_a_setting_that_will_not_do_ends_a_command_with_its_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(f"CHATASSIST_{name}", value)
    refused = run("chat", typed="\n")
    assert (refused.exit_code, refused.output.count("\n")) == (1, 1), refused.output
    assert refused.output.startswith(sentence)


def test_help_names_every_command(run: Run) -> None:
    shown = run("--help").output
    assert all(command in shown for command in ("serve", "migrate", "chat", "doctor", "settings", "vendors", "users"))
