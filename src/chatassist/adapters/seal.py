"""Seals what leaves the process for a place that others may read: only who knows the token secret can open it."""

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE_BYTES = 12  # random: even after 2^36 seals under one secret, two alike are as likely as 1 to 2^25
_PURPOSE = b"chatassist: what is sealed outside the database"


class Seal:
    """AES-256-GCM under keys derived from secrets: the first one seals, any of them opens."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [AESGCM(_key(secret)) for secret in secrets]

    def seal(self, plain: bytes, place: bytes) -> bytes:
        """Return `plain` sealed; it can only be opened as what lies at `place`."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._keys[0].encrypt(nonce, plain, place)

    def open(self, sealed: bytes, place: bytes) -> bytes | None:
        """Return what was sealed; None when it was sealed under another secret, for another place, or is damaged."""
        nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        if len(nonce) < _NONCE_BYTES:
            return None
        for key in self._keys:
            try:
                return key.decrypt(nonce, rest, place)
            except InvalidTag:
                continue
        return None


def _key(secret: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(secret.encode())
