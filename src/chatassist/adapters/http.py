"""HTTP clients towards the outside, made the same way everywhere: bounded, and blind to proxies and redirects."""

import httpx2

from chatassist.adapters.httptools_transport import HttptoolsTransport
from chatassist.adapters.tls import trusted


def open_client(*, read_timeout: float, max_connections: int = 256) -> httpx2.AsyncClient:
    """Return a client; who opens it closes it. `read_timeout`: seconds of silence that are borne while reading.

    Redirects are not followed (they would carry a conversation or a secret to another origin), and the environment's
    proxy variables are not read. A total deadline is the caller's: no timeout here bounds a peer that drips.
    """
    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(read_timeout, connect=5.0, write=10.0, pool=5.0),
        limits=httpx2.Limits(max_connections=max_connections, max_keepalive_connections=32, keepalive_expiry=30.0),
        follow_redirects=False,
        trust_env=False,
        verify=trusted(),
    )


def open_vendor_client(*, read_timeout: float, transport: HttptoolsTransport | None = None) -> httpx2.AsyncClient:
    """Return a client for an AI vendor: the same, on a transport that costs a fraction of httpx2's own."""
    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(read_timeout, connect=5.0, write=10.0, pool=5.0),
        transport=transport or HttptoolsTransport(max_connections=256),
        follow_redirects=False,
        trust_env=False,
    )
