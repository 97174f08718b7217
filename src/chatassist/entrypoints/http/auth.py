"""From a bearer token to the caller. A token counts in the Authorization header and nowhere else."""

import ipaddress
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from chatassist.domain.errors import TokenMissing
from chatassist.domain.services import Services
from chatassist.domain.services.users import Caller

bearer = HTTPBearer(auto_error=False, description="The token of a login")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


async def services(request: Request) -> Services:
    """Return what the lifespan opened."""
    found: Any = request.state.services
    assert isinstance(found, Services)  # noqa: S101 - as the lifespan made it
    return found


Given = Annotated[Services, Depends(services)]


async def caller(given: Given, credentials: Credentials) -> Caller:
    """Return who is calling. Raises Unauthenticated, UserBlocked."""
    return await _authenticate(given, credentials)


async def caller_even_blocked(given: Given, credentials: Credentials) -> Caller:
    """Return who is calling, blocked or not: whoever is blocked may still log out. Raises Unauthenticated."""
    return await _authenticate(given, credentials, even_blocked=True)


CallerNow = Annotated[Caller, Depends(caller)]
CallerEvenBlocked = Annotated[Caller, Depends(caller_even_blocked)]


async def _authenticate(
    given: Services, credentials: HTTPAuthorizationCredentials | None, *, even_blocked: bool = False
) -> Caller:
    if credentials is None or not credentials.credentials:
        raise TokenMissing
    return await given.users.authenticate(credentials.credentials, even_blocked=even_blocked)


def client_address(request: Request) -> str | None:
    """Return what to limit logins by: an IPv4 address, or an IPv6 network of 64 bits, which is one customer's.

    None for loopback peers and peers without an address (a unix socket).
    """
    if request.client is None:
        return None
    try:
        address = ipaddress.ip_address(request.client.host)
    except ValueError:  # a proxy says what is no address: all such clients share one limit
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:  # from a socket that listens on both
        address = address.ipv4_mapped
    if address.is_loopback:
        return None
    return str(ipaddress.ip_network((address, 64 if address.version == 6 else 32), strict=False))
