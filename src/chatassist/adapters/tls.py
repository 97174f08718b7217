"""Whom clients trust to be who they say: loaded once for all of them, since it takes 25 ms."""

import functools
import ssl

import httpx2


@functools.cache
def trusted() -> ssl.SSLContext:
    """Return httpx2's own context, for its trust store (the system's, with nothing read from the environment)."""
    context = httpx2.create_ssl_context(trust_env=False)
    context.set_alpn_protocols(["http/1.1"])
    return context
