"""`chatassist doctor`: each misconfiguration is told in one line with its remedy, in bounded time, without a secret."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from chatassist.adapters.persistence.engine import database_url, open_engine
from chatassist.adapters.persistence.failures import away
from chatassist.domain.diagnosis import Check, Verdict, examine
from chatassist.entrypoints.cli import app
from tests.fixtures.databases import MYSQL_DRIVERS, drop_database, new_database
from tests.fixtures.mariadb import PASSWORD, MariaDbServer
from tests.fixtures.service import SECRET, ServiceProcess
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import Behaviour, Call, fails, hangs, says, sends
from tests.fixtures.wechat import LoopbackWeChat, Misbehaviour, bad_gateway, hang, html, refusal

KEY = "sk-loopback-key-that-nobody-may-see"
HASTY = "0.6"  # seconds of patience, where a check is to run out of it
NO_CODE = "doctor-no-login-code-at-all"


@dataclass(frozen=True)
class Told:
    """What the doctor said. `lines[name]`: verdicts and sentences of one name, in order."""

    status: int
    lines: Mapping[str, list[tuple[str, str]]]
    output: str
    seconds: float

    def only(self, name: str) -> tuple[str, str]:
        """Return the one line of this name."""
        ((verdict, sentence),) = self.lines[name]
        return verdict, sentence

    @property
    def faults(self) -> list[str]:
        return [name for name, lines in self.lines.items() for verdict, _ in lines if verdict == "FAULT"]


Doctor = Callable[..., Awaitable[Told]]
MakeProcess = Callable[[Mapping[str, str]], ServiceProcess]


@pytest.fixture
def doctor(sqlite_url: URL, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Doctor:
    """Run `chatassist doctor` with these variables, on a good SQLite file and with a good secret unless given."""
    monkeypatch.chdir(tmp_path)

    async def run(variables: Mapping[str, str | None] | None = None, *more: str, patience: str = "10") -> Told:
        given = {"DATABASE__URL": shown(sqlite_url), "TOKEN__SECRET": SECRET, **(variables or {})}
        for name, value in given.items():
            if value is not None:
                monkeypatch.setenv(f"CHATASSIST_{name}", value)
        begun = time.monotonic()
        result = await asyncio.to_thread(CliRunner().invoke, app, ["doctor", "--patience", patience, *more])
        told = Told(result.exit_code, _lines(result.stdout), result.output, time.monotonic() - begun)
        for secret in (
            SECRET,
            KEY,
            PASSWORD,
            *(given[name] for name in given if name.endswith(("SECRET", "PASSWORD"))),
        ):
            assert not secret or secret not in told.output
        assert "Traceback" not in told.output
        assert told.status == (1 if told.faults else 0)
        return told

    return run


def _lines(output: str) -> Mapping[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for line in output.splitlines():
        verdict, name, sentence = line.split(maxsplit=2)
        assert verdict in set(Verdict), line
        assert sentence[0].isupper(), line
        found.setdefault(name, []).append((verdict, sentence))
    return found


def shown(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def on_vendor(vendor: LoopbackVendor) -> dict[str, str]:
    return {"LLM__BASE_URL": vendor.base_url, "LLM__API_KEY": KEY, "LLM__MODEL": "loopback-1"}


def on_wechat(wechat: LoopbackWeChat) -> dict[str, str]:
    return {"WECHAT__APPID": wechat.appid, "WECHAT__SECRET": wechat.secret, "WECHAT__BASE_URL": wechat.base_url}


# --- All is well ----------------------------------------------------------------------------------------------------


async def test_a_laptop_with_nothing_set(doctor: Doctor) -> None:
    told = await doctor({"DATABASE__URL": None, "TOKEN__SECRET": None})
    assert told.faults == []
    assert "the first start makes it" in told.only("database")[1]
    assert "the first start makes one" in told.only("token")[1]
    assert told.only("wechat")[0] == told.only("llm")[0] == "warn"
    assert not list(Path.cwd().glob("var*")), "it only looked"


async def test_sqlite_and_a_scripted_model(doctor: Doctor) -> None:
    told = await doctor({"LLM__VENDOR": "scripted"})
    assert told.faults == []
    assert {verdict for verdict, _ in told.lines["database"]} == {"ok"}
    assert "WAL" in told.lines["database"][0][1]
    assert told.only("llm")[0] == told.only("settings")[0] == told.only("redis")[0] == "ok"


@pytest.mark.parametrize("driver", MYSQL_DRIVERS)
async def test_production_on_mysql_with_vendor_and_wechat(
    doctor: Doctor, emptied_mysql: URL, driver: str, vendor: LoopbackVendor, wechat: LoopbackWeChat
) -> None:
    vendor.answers(says("o", "k"))
    wechat.answers[NO_CODE] = refusal(40029)
    url = shown(emptied_mysql.set(drivername=driver))
    told = await doctor({"ENV": "production", "DATABASE__URL": url, **on_vendor(vendor), **on_wechat(wechat)})
    assert {verdict for lines in told.lines.values() for verdict, _ in lines} <= {"ok", "warn"}, told.output
    assert told.faults == []
    sentences = [sentence for _, sentence in told.lines["database"]]
    for part in (f"127.0.0.1:{emptied_mysql.port}", "utf8mb4_bin", "READ-COMMITTED", "this version's", "written"):
        assert any(part in sentence for sentence in sentences), part
    assert told.only("llm")[1].startswith("Model loopback-1 answered; first words after 0.")
    assert told.only("wechat") == ("ok", "WeChat knows this appid and its secret.")
    assert (len(vendor.requests), [sent["js_code"] for sent in wechat.requests]) == (1, [NO_CODE]), "one call each"


# --- Settings, secrets, what nothing reads --------------------------------------------------------------------------


async def test_settings_that_make_no_sense_are_told_as_serve_tells_them(doctor: Doctor) -> None:
    told = await doctor({"HTTP__PORT": "99999999", "LLM__TEMPERATURE": "hot-and-private"})
    assert told.faults == ["settings", "settings"]
    served = await asyncio.to_thread(CliRunner().invoke, app, ["serve"])
    assert [sentence for _, sentence in told.lines["settings"]] == served.stderr.splitlines()
    assert "hot-and-private" not in told.output


async def test_settings_that_do_not_go_together(doctor: Doctor) -> None:
    told = await doctor({"ENV": "production", "TOKEN__SECRET": None})
    assert told.faults == ["settings"]
    assert "CHATASSIST_" in told.only("settings")[1]


async def test_what_nothing_reads_is_a_warning(doctor: Doctor) -> None:
    told = await doctor({"LLM__MODLE": "a-private-word"})
    assert told.faults == []
    assert "CHATASSIST_LLM__MODLE" in told.lines["settings"][1][1]
    assert "a-private-word" not in told.output


@pytest.mark.parametrize(
    "weak", ["short-0aZ9", "Changeme-changeme-changeme-12345", "abcdefghijklmnopqrstuvwxyz0123456789"]
)
@pytest.mark.parametrize("name", ["SECRET", "PREVIOUS_SECRET"])
async def test_a_weak_secret(doctor: Doctor, name: str, weak: str) -> None:
    told = await doctor({f"TOKEN__{name}": weak})
    assert told.faults == ["token"]
    assert f"CHATASSIST_TOKEN__{name} will not do" in told.only("token")[1]
    assert "openssl rand" in told.only("token")[1]


async def test_a_secret_that_the_service_made(doctor: Doctor) -> None:
    kept = Path("var/token-secret")
    kept.parent.mkdir()
    await asyncio.to_thread(kept.write_text, SECRET)
    assert "var/token-secret is fit" in (await doctor({"TOKEN__SECRET": None})).only("token")[1]
    await asyncio.to_thread(kept.write_text, "spoilt-0aZ9")
    told = await doctor({"TOKEN__SECRET": None})
    assert told.faults == ["token"]
    assert "spoilt" not in told.output


# --- The database ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", MYSQL_DRIVERS)
async def test_no_database_server(doctor: Doctor, driver: str) -> None:
    told = await doctor({"DATABASE__URL": f"{driver}://root:a-private-word@127.0.0.1:1/x"})
    assert told.faults == ["database"]
    assert "nothing answers at its address" in told.only("database")[1]
    assert "CHATASSIST_DATABASE__URL" in told.only("database")[1]
    assert "a-private-word" not in told.output


@pytest.mark.parametrize("driver", MYSQL_DRIVERS)
async def test_a_frozen_database_server(
    doctor: Doctor, start_mariadb: Callable[[], MariaDbServer], driver: str
) -> None:
    server = start_mariadb()
    server.pause()
    url = server.url.replace("mysql", driver, 1)
    told = await doctor({"DATABASE__URL": url}, patience=HASTY)
    assert told.faults == ["database"]
    assert f"took more than {HASTY} s" in told.only("database")[1]
    assert told.seconds < 4


@pytest.mark.parametrize("driver", MYSQL_DRIVERS)
async def test_a_wrong_database_password(doctor: Doctor, emptied_mysql: URL, driver: str) -> None:
    wrong = {"DATABASE__URL": shown(emptied_mysql.set(drivername=driver)), "DATABASE__PASSWORD": "a-wrong-word"}
    told = await doctor(wrong)
    assert told.faults == ["database"]
    assert "refuses this account or its password" in told.only("database")[1]


async def test_a_database_url_that_is_none(doctor: Doctor) -> None:
    told = await doctor({"DATABASE__URL": "postgres://root:a-private-word@host/x"})
    assert told.faults == ["database"]
    assert "must be sqlite" in told.only("database")[1]
    assert "a-private-word" not in told.output


async def test_a_database_that_is_not_migrated(doctor: Doctor, unmigrated: URL) -> None:
    told = await doctor({"DATABASE__URL": shown(unmigrated)})
    assert told.faults == ["database"]
    assert ("FAULT", "The schema is not this version's. Run `chatassist migrate`.") in told.lines["database"]


@pytest.fixture
async def unmigrated(mysql_server: str) -> AsyncIterator[URL]:
    url = await new_database(mysql_server)
    yield url
    await drop_database(mysql_server, url)


async def test_a_database_that_is_missing(doctor: Doctor, emptied_mysql: URL, tmp_path: Path) -> None:
    for url in (
        emptied_mysql.set(database="t_that_is_missing"),
        database_url(f"sqlite+aiosqlite:///{tmp_path}/none.db"),
    ):
        told = await doctor({"DATABASE__URL": shown(url)})
        assert told.faults == ["database"]
        assert "un `chatassist migrate`" in told.only("database")[1]
    assert not (tmp_path / "none.db").exists(), "it only looked"


async def test_tables_with_another_collation(doctor: Doctor, emptied_mysql: URL) -> None:
    await on_server(emptied_mysql, "ALTER TABLE messages CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
    try:
        told = await doctor({"DATABASE__URL": shown(emptied_mysql)})
    finally:
        await on_server(emptied_mysql, "ALTER TABLE messages CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    assert told.faults == ["database"]
    assert "another collation than utf8mb4_bin: messages. For each, run: ALTER TABLE" in told.output


async def test_an_account_that_may_only_read(doctor: Doctor, emptied_mysql: URL) -> None:
    await on_server(emptied_mysql, "CREATE USER 'reader'@'%' IDENTIFIED BY 'a-reading-word'")
    try:
        await on_server(emptied_mysql, f"GRANT SELECT ON {emptied_mysql.database}.* TO 'reader'@'%'")
        account = {"DATABASE__USER": "reader", "DATABASE__PASSWORD": "a-reading-word"}
        told = await doctor({"DATABASE__URL": shown(emptied_mysql), **account})
    finally:
        await on_server(emptied_mysql, "DROP USER 'reader'@'%'")
    assert told.faults == ["database"]
    assert "may not do that there" in told.lines["database"][-1][1]


async def test_a_binary_log_that_lets_nobody_write(start_mariadb: Callable[..., MariaDbServer], doctor: Doctor) -> None:
    server = start_mariadb("--log-bin=binlog", "--binlog-format=STATEMENT")
    told = await doctor({"DATABASE__URL": f"{server.url}/mysql"})
    assert "Set it to ROW or MIXED" in told.output


async def on_server(url: URL, statement: str) -> None:
    engine = open_engine(url, pool_size=1)
    async with engine.connect() as db:
        await db.exec_driver_sql(statement.replace("%", "%%"))
    await engine.dispose()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.write_text("no database " * 1000), "no SQLite database"),
        (lambda file: (file.unlink(), file.mkdir()), "its file cannot be opened"),
    ],
    ids=["junk", "folder"],
)
async def test_an_sqlite_file_that_is_none(
    doctor: Doctor, sqlite_url: URL, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(Path(str(sqlite_url.database)))
    told = await doctor()
    assert told.faults == ["database"]
    assert said in told.only("database")[1]


def test_an_sqlite_file_that_may_only_be_read(sqlite_url: URL) -> None:
    """By the error alone, since the account that tests run under may be allowed everything."""
    file = sqlite3.connect(f"file:{sqlite_url.database}?mode=ro", uri=True, isolation_level=None)
    with pytest.raises(sqlite3.OperationalError) as caught:
        file.execute("DELETE FROM instances")
    file.close()
    assert "its file may only be read" in str(away(OperationalError("", {}, caught.value)))


async def test_an_sqlite_file_that_another_process_keeps(doctor: Doctor, sqlite_url: URL) -> None:
    other = sqlite3.connect(str(sqlite_url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    told = await doctor()
    other.close()
    assert told.faults == ["database"]
    assert told.seconds < 4
    assert len(told.lines["database"]) == 3, "what was found before is told"
    assert "another process keeps it from being written" in told.lines["database"][-1][1]


# --- WeChat ---------------------------------------------------------------------------------------------------------


async def test_a_wrong_wechat_secret_or_appid(doctor: Doctor, wechat: LoopbackWeChat) -> None:
    for name, value, said in (("SECRET", "f" * 32, "the secret is wrong"), ("APPID", "wx0", "the appid is wrong")):
        told = await doctor({**on_wechat(wechat), f"WECHAT__{name}": value})
        assert told.faults == ["wechat"]
        assert said in told.only("wechat")[1]
        assert "CHATASSIST_WECHAT__APPID" in told.only("wechat")[1]


@pytest.mark.parametrize(
    ("answer", "verdict", "said"),
    [
        (refusal(40164, "invalid ip 1.2.3.4"), "FAULT", "not on the mini-program's IP allow-list"),
        (refusal(45011), "warn", "errcode 45011"),
        (refusal(-1), "FAULT", "it is busy"),
        (html, "FAULT", "not JSON"),
        (bad_gateway, "FAULT", "status 502"),
        ({"openid": "o1"}, "warn", "this is not WeChat"),
    ],
    ids=["address", "haste", "busy", "html", "gateway", "impostor"],
)
async def test_what_wechat_answers(
    doctor: Doctor, wechat: LoopbackWeChat, answer: Mapping[str, Any] | Misbehaviour, verdict: str, said: str
) -> None:
    wechat.answers[NO_CODE] = answer
    told = await doctor(on_wechat(wechat))
    assert told.only("wechat")[0] == verdict
    assert said in told.only("wechat")[1]
    assert "1.2.3.4" not in told.output


async def test_a_wechat_that_hangs(doctor: Doctor, wechat: LoopbackWeChat) -> None:
    wechat.answers[NO_CODE] = hang
    told = await doctor(on_wechat(wechat), patience=HASTY)
    assert told.faults == ["wechat"]
    assert f"took more than {HASTY} s" in told.only("wechat")[1]
    assert "CHATASSIST_WECHAT__BASE_URL" in told.only("wechat")[1]
    assert told.seconds < 4


# --- The AI vendor --------------------------------------------------------------------------------------------------

TELLTALE = "a-word-of-the-vendor"


@pytest.mark.parametrize(
    ("behaviour", "verdict", "said"),
    [
        (
            fails(401, {"error": {"message": f"Incorrect key {KEY} {TELLTALE}"}}),
            "FAULT",
            "the key was refused. Look at",
        ),
        (fails(404, {"error": {"code": "model_not_found", "message": TELLTALE}}), "FAULT", "no such model or address"),
        (fails(402, {"error": {"message": TELLTALE}}), "FAULT", "unpaid"),
        (fails(429, {"error": {"message": TELLTALE}}), "warn", "limits us. Try again later"),
        (fails(500, f"<html>{TELLTALE}</html>"), "FAULT", "the vendor failed"),
        (sends(f"<html>{TELLTALE}</html>".encode(), content_type="text/html"), "FAULT", "CHATASSIST_LLM__BASE_URL"),
        (says(finish="length"), "warn", "cut off before its first word"),
        (says(finish="stop"), "FAULT", "The model answered nothing"),
        (says(finish="content_filter"), "warn", "refuses even the words"),
    ],
    ids=["401", "404", "402", "429", "500", "html", "cut", "empty", "blocked"],
)
async def test_what_a_vendor_answers(
    doctor: Doctor, vendor: LoopbackVendor, behaviour: Any, verdict: str, said: str
) -> None:
    vendor.answers(behaviour)
    told = await doctor(on_vendor(vendor))
    assert told.only("llm")[0] == verdict
    assert said in told.only("llm")[1]
    assert TELLTALE not in told.output


@pytest.mark.parametrize("words", [(), ("o",)], ids=["at once", "after a word"])
async def test_a_vendor_that_hangs(doctor: Doctor, vendor: LoopbackVendor, words: tuple[str, ...]) -> None:
    vendor.answers(hangs(*words))
    told = await doctor(on_vendor(vendor), patience=HASTY)
    assert told.faults == ["llm"]
    assert f"took more than {HASTY} s" in told.only("llm")[1]
    assert told.seconds < 4
    await vendor.until(lambda: vendor.busy == 0)


async def test_a_vendors_model_name_is_shown_only_if_it_looks_like_one(doctor: Doctor, vendor: LoopbackVendor) -> None:
    from tests.fixtures.vendor_behaviours import event, piece, stream_of

    odd = event({**piece("x"), "model": f"{TELLTALE} and more"})
    vendor.answers(sends(odd, stream_of("y").replace(b"loopback-1", b"a b")))
    told = await doctor(on_vendor(vendor))
    assert told.only("llm")[1].startswith("The model answered")


# --- Titles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "verdict", "said"),
    [
        (says("ok"), "ok", "Model loopback-1 answered"),
        (fails(404, {"error": {"message": TELLTALE}}), "FAULT", "Look at CHATASSIST_LLM__TITLE_MODEL"),
        (fails(500), "FAULT", "first words of their questions"),
    ],
    ids=["well", "404", "500"],
)
async def test_a_model_for_titles_is_tried_by_itself(
    doctor: Doctor, vendor: LoopbackVendor, behaviour: Behaviour, verdict: str, said: str
) -> None:
    async def answers(call: Call) -> None:
        await (behaviour if call.request.body["model"] == "titles-1" else says("ok"))(call)

    vendor.script = answers
    told = await doctor({**on_vendor(vendor), "LLM__TITLE_MODEL": "titles-1"})
    assert told.only("llm")[0] == "ok"
    assert told.only("titles")[0] == verdict
    assert said in told.only("titles")[1]
    assert TELLTALE not in told.output
    assert sorted(request.body["model"] for request in vendor.requests) == ["loopback-1", "titles-1"]


async def test_without_a_model_for_titles_nothing_is_said_of_them(doctor: Doctor, vendor: LoopbackVendor) -> None:
    assert "titles" not in (await doctor(on_vendor(vendor))).lines
    assert "titles" not in (await doctor({"LLM__VENDOR": "scripted", "LLM__TITLE_MODEL": "titles-1"})).lines


# --- Speech to text -------------------------------------------------------------------------------------------------


def on_whisper(vendor: LoopbackVendor) -> dict[str, str]:
    return {
        "ASR__ENGINE": "whisper_api",
        "ASR__BASE_URL": vendor.base_url,
        "ASR__API_KEY": KEY,
        "ASR__MODEL": "whisper-1",
    }


@pytest.mark.parametrize(
    ("behaviour", "verdict", "said"),
    [
        (sends(b'{"text":""}', content_type="application/json"), "ok", "silence was transcribed in 0."),
        (
            fails(401, {"error": {"message": f"{KEY} {TELLTALE}"}}),
            "FAULT",
            "the key was refused. Look at CHATASSIST_ASR",
        ),
        (fails(404, f"<html>{TELLTALE}</html>"), "FAULT", "no such model or address"),
        (fails(400, {"error": {"message": TELLTALE}}), "warn", "HTTP 400"),
        (sends(f"<html>{TELLTALE}</html>".encode(), content_type="text/html"), "FAULT", "holds no text"),
    ],
    ids=["ok", "401", "404", "400", "html"],
)
async def test_what_a_whisper_vendor_answers(
    doctor: Doctor, vendor: LoopbackVendor, behaviour: Any, verdict: str, said: str
) -> None:
    vendor.answers(behaviour)
    told = await doctor(on_whisper(vendor))
    assert told.only("asr")[0] == verdict
    assert said in told.only("asr")[1]
    assert TELLTALE not in told.output
    assert vendor.requests[0].body.count(b"RIFF") == 1, "a real recording"


async def test_a_whisper_vendor_that_hangs(doctor: Doctor, vendor: LoopbackVendor) -> None:
    vendor.answers(hangs(head=False))
    told = await doctor(on_whisper(vendor), patience=HASTY)
    assert told.faults == ["asr"]
    assert told.seconds < 4


async def test_whisper_on_this_machine(doctor: Doctor, tiny_whisper: Path) -> None:
    told = await doctor({"ASR__ENGINE": "whisper_local", "ASR__MODEL": str(tiny_whisper)}, patience="30")
    assert told.only("asr")[0] == "ok", "the model was loaded and heard something"


async def test_whisper_on_this_machine_without_its_model(doctor: Doctor, tmp_path: Path) -> None:
    told = await doctor({"ASR__ENGINE": "whisper_local", "ASR__MODEL": str(tmp_path)})
    assert told.faults == ["asr"]
    assert "lacks model.bin" in told.only("asr")[1]
    named = await doctor({"ASR__ENGINE": "whisper_local", "ASR__MODEL": "small"})
    assert named.only("asr")[0] == "warn", "named, so it may have to be fetched: never by the doctor"


async def test_no_engine_wanted_and_none_given(doctor: Doctor) -> None:
    assert (await doctor()).only("asr")[0] == "warn"
    assert (await doctor({"ASR__ENGINE": "none"})).only("asr")[0] == "ok"


async def test_everything_at_fault_at_once_is_told_at_once(
    doctor: Doctor, vendor: LoopbackVendor, wechat: LoopbackWeChat, start_mariadb: Callable[[], MariaDbServer]
) -> None:
    server = start_mariadb()
    server.pause()
    vendor.answers(hangs())
    wechat.answers[NO_CODE] = hang
    given = {"DATABASE__URL": server.url, "TOKEN__SECRET": "weak-0aZ9", **on_vendor(vendor), **on_wechat(wechat)}
    told = await doctor(given, patience=HASTY)
    assert told.faults == ["token", "database", "wechat", "llm"]
    assert told.seconds < 4, "side by side, not one after the other"


async def test_the_process_itself_ends_in_time(
    process: MakeProcess, vendor: LoopbackVendor, start_mariadb: Callable[[], MariaDbServer]
) -> None:
    """As an operator runs it: no thread or connection that hangs keeps it from ending."""
    server = start_mariadb()
    server.pause()
    vendor.answers(hangs())
    given = {"DATABASE__URL": server.url, "TOKEN__SECRET": SECRET, **on_vendor(vendor)}
    doctor = process({f"CHATASSIST_{name}": value for name, value in given.items()})
    async with asyncio.timeout(20):  # mostly for its imports
        assert await doctor.run("doctor", "--patience", HASTY) == 1
    assert [line.split()[1] for line in doctor.output.splitlines() if line.startswith("FAULT")] == ["database", "llm"]
    assert PASSWORD not in doctor.output


# --- The runner -----------------------------------------------------------------------------------------------------


async def test_a_defect_of_a_check_or_one_that_clings_to_life_stops_no_other() -> None:
    async def defective() -> AsyncIterator[tuple[Verdict, str]]:
        yield Verdict.OK, "So far."
        raise RuntimeError("a-private-word")

    async def cancelled() -> AsyncIterator[tuple[Verdict, str]]:
        yield Verdict.OK, "So far."
        raise asyncio.CancelledError

    async def clinging() -> AsyncIterator[tuple[Verdict, str]]:
        for _ in range(2):
            try:
                await asyncio.sleep(3)
            except asyncio.CancelledError:
                continue
        yield Verdict.OK, "Too late."

    async def good() -> AsyncIterator[tuple[Verdict, str]]:
        yield Verdict.OK, "Fine."

    begun = time.monotonic()
    checks = [Check(name=look.__name__, look=look) for look in (defective, cancelled, clinging, good)]
    found = [(each.name, each.verdict, each.sentence) async for each in examine(checks, patience=0.05)]
    assert found == [
        ("defective", Verdict.OK, "So far."),
        ("defective", Verdict.FAULT, "The check itself failed: RuntimeError."),
        ("cancelled", Verdict.OK, "So far."),
        ("cancelled", Verdict.FAULT, "The check itself failed: CancelledError."),
        ("clinging", Verdict.FAULT, "It took more than 0.05 s."),
        ("good", Verdict.OK, "Fine."),
    ]
    assert time.monotonic() - begun < 2
