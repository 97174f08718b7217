"""The command line: runs the HTTP door, and is a door itself. What is heavy is imported where it is used."""

import asyncio
import gc
import logging
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Annotated

import typer
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from chatassist.domain.diagnosis import Finding, Verdict
from chatassist.domain.errors import ChatAssistError
from chatassist.entrypoints import logs, vendor_table
from chatassist.entrypoints.reference import as_markdown, as_text
from chatassist.settings import PREFIX, AsrEngine, Settings
from chatassist.settings.names import unknown_variables
from chatassist.settings.vendors import key_variables

log = logging.getLogger(__name__)

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Backend of an AI chat assistant.")
users = typer.Typer(no_args_is_help=True, help="Look after users.")
app.add_typer(users, name="users")

_HINT = """
chatassist is up on {base}. Log in and chat:

  TOKEN=$(curl -s {base}/v1/auth/wechat-login -H 'Content-Type: application/json' \
-d '{{"code":"dev:first-try"}}' | sed 's/.*"token":"\\([^"]*\\)".*/\\1/')
  curl -s {base}/v1/chat/message -H "Authorization: Bearer $TOKEN" \
-H 'Content-Type: application/json' -d '{{"content":"你好"}}'
"""


def main() -> None:
    """Run the command line."""
    app()


@app.command()
def serve() -> None:
    """Serve the HTTP API until SIGTERM or Ctrl+C."""
    from chatassist.container import open_services  # noqa: PLC0415
    from chatassist.entrypoints.http.app import create_app  # noqa: PLC0415
    from chatassist.entrypoints.http.server import new_server  # noqa: PLC0415

    settings = _settings()
    for name in unknown_variables(keys=key_variables(settings.llm.vendors_file)):
        typer.echo(f"{name} is set, but nothing reads it: misspelt, or of another version?", err=True)

    async def try_out() -> None:  # uvicorn would tell of a failed start in a traceback; this way it is one sentence
        async with open_services(settings):
            pass

    with _sentences():
        asyncio.run(try_out())
    limits, door = settings.limits, settings.door
    web = create_app(
        lambda: open_services(settings), door, body_bytes=limits.body_bytes, audio_bytes=limits.audio_bytes
    )
    if settings.asr.engine is AsrEngine.NONE:
        log.warning("speech to text is not configured: see CHATASSIST_ASR__ENGINE")
    hint = _HINT if settings.local_login else ""

    def started(base: str) -> None:
        # What is there now stays: the collector need not walk it again, nor look for cycles as often as by default.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        typer.echo(hint.format(base=base))

    new_server(web, door, started).run()


@app.command()
def migrate() -> None:
    """Bring the database to this version, creating it where that is allowed."""
    from chatassist.container import migrate as run  # noqa: PLC0415

    settings = _settings()
    with _sentences():
        asyncio.run(run(settings))
    typer.echo("The database is up to date.")


@app.command()
def chat(session: Annotated[str | None, typer.Option(help="Go on with this session")] = None) -> None:
    """Chat in the terminal, through the same services as the HTTP API. An empty line ends it."""
    from chatassist.container import open_services  # noqa: PLC0415
    from chatassist.entrypoints.terminal import converse  # noqa: PLC0415

    settings = _settings(quiet=True)

    async def run() -> None:
        async with open_services(settings) as services:
            await converse(services, session)

    with _sentences():
        asyncio.run(run())


@app.command()
def doctor(
    patience: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds that one check may take")] = 20.0,
    vendor: Annotated[
        str | None, typer.Option(help="Try only this AI vendor, by its name or kind: chat, and speech where it has it")
    ] = None,
) -> None:
    """Try what is configured (database, WeChat, AI vendor and so on), and tell what to do about each fault.

    Makes one tiny call to each vendor, changes nothing, and ends with status 1 if there is a fault.
    """
    from chatassist.container import diagnose  # noqa: PLC0415

    settings, faults = _read_settings()
    for sentence in faults:
        _tell(Finding("settings", Verdict.FAULT, sentence))
    if settings is None:
        raise typer.Exit(1)
    logs.configure(as_json=settings.is_production, quiet=True)

    async def run() -> bool:
        async with aclosing(diagnose(settings, patience=patience, vendor=vendor)) as findings:
            return [_tell(found) async for found in findings].count(Verdict.FAULT) > 0

    with _sentences():
        at_fault = asyncio.run(run())
    raise typer.Exit(1 if at_fault else 0)


def _tell(found: Finding) -> Verdict:
    typer.echo(f"{found.verdict:<5}  {found.name:<8}  {found.sentence}")
    return found.verdict


@app.command()
def settings(*, markdown: Annotated[bool, typer.Option("--markdown", help="As in docs/settings.md")] = False) -> None:
    """List every variable that can be set: its type, default and meaning. Shows nothing of what is set."""
    typer.echo(as_markdown() if markdown else as_text(), nl=False)


@app.command()
def vendors(*, markdown: Annotated[bool, typer.Option("--markdown", help="As in docs/vendors.md")] = False) -> None:
    """List the kinds of AI vendors that are known: CHATASSIST_LLM__VENDOR takes their names."""
    from chatassist.container import vendors as known  # noqa: PLC0415

    typer.echo(vendor_table.as_markdown(known()) if markdown else vendor_table.as_text(known()), nl=False)


@users.command()
def block(user: Annotated[str, typer.Argument(help="Id or openid")]) -> None:
    """Refuse a user everything but logging out, from the next request on."""
    _set_blocked(user, blocked=True)


@users.command()
def unblock(user: Annotated[str, typer.Argument(help="Id or openid")]) -> None:
    """Let a blocked user in again."""
    _set_blocked(user, blocked=False)


def _set_blocked(user_id: str, *, blocked: bool) -> None:
    from chatassist.container import open_services  # noqa: PLC0415

    settings = _settings(quiet=True)

    async def run() -> str | None:
        async with open_services(settings) as services:
            user = await services.users.block(user_id, blocked=blocked)
        return user.id if user else None

    with _sentences():
        found = asyncio.run(run())
    if found is None:
        typer.echo("There is no such user.", err=True)
        raise typer.Exit(1)
    typer.echo(f"User {found} is {'blocked' if blocked else 'not blocked'}.")


def _settings(*, quiet: bool = False) -> Settings:
    """Return the settings with logging set up by them; what is wrong with them ends the command, in sentences."""
    settings, faults = _read_settings()
    for sentence in faults:
        typer.echo(sentence, err=True)
    if settings is None:
        raise typer.Exit(1)
    logs.configure(as_json=settings.is_production, quiet=quiet)
    return settings


def _read_settings() -> tuple[Settings | None, Sequence[str]]:
    """Return the settings, or None and a sentence for each thing that is wrong with them."""
    try:
        return Settings(), ()
    except ValidationError as error:
        return None, [
            _sentence(fault) for fault in error.errors(include_input=False, include_url=False, include_context=False)
        ]
    except SettingsError as error:  # a section given as a whole, in JSON that is none
        return None, [f"{error}."]
    except UnicodeDecodeError:
        return None, ["The file .env is not UTF-8."]


def _sentence(fault: ErrorDetails) -> str:
    name = "__".join(str(part).upper() for part in fault["loc"][:2])
    said = fault["msg"].removeprefix("Value error, ")
    return f"{PREFIX}{name}: {said}" if name else said


@contextmanager
def _sentences() -> Iterator[None]:
    """Let what an operator can mend end the command with its sentence instead of a traceback."""
    try:
        yield
    except OSError as error:
        typer.echo(f"{error.strerror}: {error.filename}", err=True)
        raise typer.Exit(1) from None
    except (ChatAssistError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
