"""Whether the process lives, and whether it can serve: for load balancers, outside `/v1`."""

from fastapi import APIRouter, Response

from chatassist.domain.errors import ShuttingDown, StoreUnavailable
from chatassist.entrypoints.http.auth import Given
from chatassist.entrypoints.http.envelope import Envelope
from chatassist.entrypoints.http.schemas import Wire

router = APIRouter(tags=["health"])


class Health(Wire):
    """How it stands."""

    status: str


@router.get("/healthz")
async def healthz() -> Envelope[Health]:
    """Answer that the process is alive."""
    return Envelope(data=Health(status="alive"))


@router.get("/readyz", responses={503: {"description": "The database or its schema is not ready, or we are draining"}})
async def readyz(given: Given, response: Response) -> Envelope[Health]:
    """Answer whether requests can be served: the database answers, and its schema is current."""
    try:
        await given.check()
    except (ShuttingDown, StoreUnavailable) as error:
        response.status_code = 503
        return Envelope(code=503, message=error.slug, data=Health(status="not ready"))
    return Envelope(data=Health(status="ready"))
