"""A conversation in the terminal: the same services as behind HTTP, followed event by event."""

import asyncio
import getpass
import threading
from contextlib import suppress

import typer

from chatassist.domain.errors import ChatAssistError
from chatassist.domain.model import User
from chatassist.domain.ports.replies import Delta, Ended, Replace
from chatassist.domain.services import Services
from chatassist.domain.turns import Draft, End, Status


async def converse(services: Services, session_id: str | None) -> None:
    """Ask and answer until an empty line or the end of input, in a given session or in a new one.

    The user is `terminal:<account>`, which no WeChat openid can be. Raises SessionNotFound.
    """
    user = await services.users.ensure(f"terminal:{getpass.getuser()}")
    if session_id:
        for turn in (await services.sessions.latest(user, session_id))[1]:
            typer.echo(f"> {turn.message.content}\n{turn.reply.content}\n")
    while text := await _asked():
        session_id = await _turn(services, user, Draft(text=text, session_id=session_id)) or session_id
    if session_id:
        typer.echo(f"To go on: chatassist chat --session {session_id}")


async def _turn(services: Services, user: User, draft: Draft) -> str | None:
    """Show one turn as it comes; return its session, or None when the message was refused."""
    try:
        turn = (await services.messages.send(user, draft)).turn
    except ChatAssistError as error:
        typer.echo(f"Refused: {error.slug}", err=True)
        return None
    async for events in services.replies.events(turn):
        for numbered in events:
            match numbered.event:
                case Delta(text):
                    typer.echo(text, nl=False)
                case Replace(content):
                    typer.echo(f"\n{content}", nl=False)
                case Ended(end):
                    _close(end)
    return turn.message.session_id


def _close(end: End) -> None:
    typer.echo("\n")
    if end.status is Status.FAILED:
        typer.echo(f"The reply failed: {end.reason}", err=True)


async def _asked() -> str:
    """Return what is typed. In a thread that the process does not wait for at its end, so that Ctrl+C ends it."""
    loop = asyncio.get_running_loop()
    typed: asyncio.Future[str] = loop.create_future()

    def ask() -> None:
        try:
            text = input("> ").strip()
        except EOFError:
            text = ""
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(typed.set_result, text)

    threading.Thread(target=ask, daemon=True).start()
    return await typed
