"""Addresses of AI vendors as operators write them: what was pasted or doubled is repaired, the rest refused at start.

What is joined to an address later is a path alone, so nothing may follow its path. No sentence here holds an address:
it may have a key in it.
"""

import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

from chatassist.adapters.vendor import Vendor

# What is pasted along with an address; the longer of two that end alike first.
_PASTED = (
    *("/chat/completions", "/completions", "/responses", "/models", "/embeddings"),
    *("/audio/transcriptions", "/audio/translations", "/audio/speech"),
)
_VERSION = re.compile(r"/v\d+[a-z0-9]*")
_DOUBLED = re.compile(r"(/v\d+[a-z0-9]*)\1+(?=/|$)")
_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f]")


def repaired(vendor: Vendor, base_url: str) -> str:
    """Return the address that is meant. Raises ValueError with a sentence if there is no telling which."""
    parts = _split(vendor, base_url.strip())
    host = (parts.hostname or "").rstrip(".")
    known = belongs(vendor, host)
    scheme, netloc = parts.scheme, parts.netloc
    if known and scheme == "http" and parts.port in (None, 80):
        scheme, netloc = "https", host
    path = _path(vendor, parts.path, known=known)
    if vendor.paths and not any(part in f"{path}/" for part in vendor.paths):
        msg = f"an address of {vendor.title} needs its path: one with {' or '.join(vendor.paths)}"
        raise ValueError(msg)
    return urlunsplit((scheme, netloc, path, "", ""))


def belongs(vendor: Vendor, host: str) -> bool:
    """Tell whether a host is one of the vendor's public ones, or lies below it."""
    return any(f".{host}".endswith(f".{own}") for own in vendor.hosts)


def _split(vendor: Vendor, text: str) -> SplitResult:
    """Take an address apart. Raises ValueError unless it is one of HTTP, with nothing but host, port and path."""
    if "://" not in text and belongs(vendor, text.partition("/")[0].lower()):
        text = f"https://{text}"
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        raise ValueError("the address is none such as https://api.example.com/v1") from None
    if not sound or _CONTROL.search(text):
        raise ValueError("the address is none such as https://api.example.com/v1")
    if "@" in parts.netloc:
        raise ValueError("the address has an account in it: the key is a setting of its own")
    if "?" in text or "#" in text:
        raise ValueError(
            "the address has a query or fragment: leave out what begins with ? or #; parameters are to be given as"
            " `query` of the overrides"
        )
    return parts


def _path(vendor: Vendor, given: str, *, known: bool) -> str:
    """Return a path without what was pasted or doubled; the vendor's own where none is given, and it has to be that."""
    path = given.rstrip("/")
    while pasted := next((end for end in _PASTED if path.endswith(end)), None):
        path = path.removesuffix(pasted).rstrip("/")
    path = _DOUBLED.sub(r"\1", path)
    own = urlsplit(vendor.base_url or "").path
    if known and own and _misses(path, own):
        return own
    return path or (own if known or not vendor.hosts else "")


def _misses(path: str, own: str) -> bool:
    """Tell whether a path is the vendor's own with one version too many, or its version alone."""
    return path == own[own.rindex("/") :] or (path.startswith(own) and bool(_VERSION.fullmatch(path.removeprefix(own))))
