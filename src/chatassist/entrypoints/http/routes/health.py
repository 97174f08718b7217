"""Whether the process lives, and whether it can serve: for load balancers, outside `/v1`."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from chatassist.domain.errors import ShuttingDown, StoreUnavailable
from chatassist.entrypoints.http.auth import Given
from chatassist.entrypoints.http.envelope import Envelope, Refusal, refuse, request_id
from chatassist.entrypoints.http.schemas import Wire

READY_SECONDS = 2.0
"""How long a probe may wait; load balancers do not wait much longer."""

router = APIRouter(tags=["health"])


_NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": Refusal, "description": "The database or its schema is not ready, or we are draining"}
}


class Health(Wire):
    """How it stands."""

    status: str


@router.get("/healthz")
async def healthz() -> Envelope[Health]:
    """Answer that the process is alive."""
    return Envelope(data=Health(status="alive"))


@router.get("/readyz", response_model=Envelope[Health], responses=_NOT_READY)
async def readyz(request: Request, given: Given) -> Envelope[Health] | Response:
    """Answer whether requests can be served: the database answers, and its schema is current."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            await given.check()
    except TimeoutError:
        return refuse(StoreUnavailable(), request_id(request), status=503)
    except (ShuttingDown, StoreUnavailable) as error:
        return refuse(error, request_id(request), status=503)  # what load balancers understand
    return Envelope(data=Health(status="ready"))
