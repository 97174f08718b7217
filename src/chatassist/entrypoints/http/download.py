"""An export as a download: sent as it is read, page by page, as fast as its reader takes it."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from enum import StrEnum

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chatassist.domain.errors import ChatAssistError
from chatassist.domain.services.exports import LONGEST, Pages, Part
from chatassist.entrypoints.http.export_json import JsonExport
from chatassist.entrypoints.http.export_markdown import MarkdownExport
from chatassist.entrypoints.http.sse import until_gone

log = logging.getLogger(__name__)

_ENOUGH = 64 * 1024  # characters to send at a time: small pages wait for each other


class ExportFormat(StrEnum):
    """How an export may be written."""

    JSON = "json"
    MARKDOWN = "markdown"


_WRITERS: Mapping[ExportFormat, type[JsonExport | MarkdownExport]] = {
    ExportFormat.JSON: JsonExport,
    ExportFormat.MARKDOWN: MarkdownExport,
}


class ExportDownload(Response):
    """An export that has begun. Where it cannot be ended the connection is cut: what arrived shows that it is not all.

    A slow reader holds one page; once he is gone nothing more is read.
    """

    def __init__(self, first: Sequence[Part], pages: Pages, form: ExportFormat) -> None:
        self._writer = _WRITERS[form]()
        name = f"chatassist-export.{self._writer.suffix}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
        super().__init__(headers=headers, media_type=self._writer.media_type)
        del self.headers["content-length"]
        self._first = first
        self._pages = pages

    @classmethod
    async def opened(cls, pages: Pages, form: ExportFormat) -> "ExportDownload":
        """Read the first page, so that what is refused is refused in an envelope. Raises what `ExportService` does."""
        return cls(await anext(pages), pages, form)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or as much as there is time and a reader for."""
        gone = asyncio.create_task(until_gone(receive))
        try:
            async with aclosing(self._pages), asyncio.timeout(LONGEST.total_seconds()):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await self._send_all(send, gone)
        except TimeoutError:
            log.warning("export broke", extra={"reason": "too_slow"})
        except ChatAssistError as error:
            log.warning("export broke", extra={"reason": error.slug, "detail": str(error)})
        except asyncio.CancelledError:  # the server ends, and waits no longer
            log.warning("export broke", extra={"reason": "shutting_down"})
        finally:
            gone.cancel()

    async def _send_all(self, send: Send, gone: asyncio.Task[None]) -> None:
        waiting = self._written(self._first)
        async for page in self._pages:
            if gone.done():
                log.info("export was not wanted any more")
                return
            waiting += self._written(page)
            if len(waiting) >= _ENOUGH:
                await send({"type": "http.response.body", "body": waiting.encode(), "more_body": True})
                waiting = ""
        await send({"type": "http.response.body", "body": (waiting + self._writer.end()).encode()})

    def _written(self, page: Sequence[Part]) -> str:
        return "".join(map(self._writer.write, page))
