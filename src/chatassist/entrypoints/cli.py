"""The command line: runs the HTTP door, and is a door itself. What is heavy is imported where it is used."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from chatassist.domain.errors import ChatAssistError
from chatassist.entrypoints import logs
from chatassist.settings import PREFIX, Settings, unknown_variables

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
    for name in unknown_variables():
        typer.echo(f"{name} is set, but nothing reads it: misspelt, or of another version?", err=True)

    async def try_out() -> None:  # uvicorn would tell of a failed start in a traceback; this way it is one sentence
        async with open_services(settings):
            pass

    with _sentences():
        asyncio.run(try_out())
    web = create_app(lambda: open_services(settings), settings.door, body_bytes=settings.limits.body_bytes)
    hint = _HINT if settings.local_login else ""
    new_server(web, settings.door, lambda base: typer.echo(hint.format(base=base))).run()


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
    try:
        settings = Settings()
    except ValidationError as error:
        for fault in error.errors(include_input=False, include_url=False, include_context=False):
            name = "__".join(str(part).upper() for part in fault["loc"][:2])
            typer.echo(f"{PREFIX}{name}: {fault['msg']}" if name else fault["msg"].partition(", ")[2], err=True)
        raise typer.Exit(1) from None
    except SettingsError as error:  # a section given as a whole, in JSON that is none
        typer.echo(f"{error}.", err=True)
        raise typer.Exit(1) from None
    except UnicodeDecodeError:
        typer.echo("The file .env is not UTF-8.", err=True)
        raise typer.Exit(1) from None
    logs.configure(as_json=settings.is_production, quiet=quiet)
    return settings


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
