"""The secret that signs tokens: what makes one fit for use, and where a developer's machine keeps its own."""

import contextlib
import os
import secrets
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

SECRET_BYTES = 32  # RFC 7518, 3.2: an HS256 key is no shorter than its hash
DISTINCT_CHARS = 8  # 32 random hex digits have about 14
_WELL_KNOWN = (
    *("changeme", "change-me", "change_me", "secret", "password", "passw0rd", "example", "default", "placeholder"),
    *("replace", "insert", "your-", "your_", "chatassist", "qwerty", "letmein", "deadbeef"),
)
_KEY_FORMATS = (
    "-----BEGIN",
    "ssh-rsa",
    "ssh-dss",
    "ssh-ed25519",
    "ecdsa-sha2-",
)  # PyJWT refuses to use such a key with HMAC, rightly


def check_secret(secret: str) -> None:
    """Raise ValueError, in one sentence that never holds the secret, unless it is fit to sign tokens."""
    if not secret.isprintable():  # a line end that came along from a file, or bytes that are no text
        raise ValueError("the token secret holds a line end or another unprintable character")
    if len(secret.encode()) < SECRET_BYTES:
        raise ValueError(f"the token secret is shorter than {SECRET_BYTES} bytes")
    if any(word in secret.lower() for word in _WELL_KNOWN):
        raise ValueError("the token secret contains a well-known word, as examples do")
    if any(mark in secret for mark in _KEY_FORMATS):
        raise ValueError("the token secret is a certificate's or a key pair's text")
    if len(set(secret)) < DISTINCT_CHARS:
        raise ValueError(f"the token secret has fewer than {DISTINCT_CHARS} distinct characters")
    if _repeats(secret) or _counts(secret):
        raise ValueError("the token secret is a repeated pattern or a sequence")


def load_or_create_secret(path: Path) -> str:
    """Return the secret in the file, which is made first, readable by its owner alone, if it does not exist.

    Processes that start at once agree on one secret. Raises ValueError for a file with an unfit one, and OSError.
    """
    if not path.exists():
        _create(path)
    secret = path.read_text(encoding="utf-8").strip()
    check_secret(secret)
    return secret


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A temporary file has mode 0600. Linking it gives it its name whole, or not at all if another process was first.
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".secret-", encoding="utf-8") as draft:
        draft.write(secrets.token_urlsafe(48) + "\n")
        draft.flush()
        os.fsync(draft.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft.name)


def _repeats(text: str) -> bool:
    """Tell whether the text is a piece of at most half its length, again and again."""
    return any(text[period:] == text[:-period] for period in range(1, len(text) // 2 + 1))


def _counts(text: str) -> bool:
    """Tell whether most characters follow their neighbours by one and the same step, as in `abcdef` or `13579`."""
    steps = Counter(ord(right) - ord(left) for left, right in pairwise(text))
    return steps.most_common(1)[0][1] > len(text) // 2
