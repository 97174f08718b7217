"""What stands for a person where the account may not show: the same for the same openid, and no way back from it."""

import hmac

from chatassist.domain.usage import Pseudonym

_PURPOSE = b"chatassist: a pseudonym of an openid: "


def pseudonyms(secret: str) -> Pseudonym:
    """Return a way to make pseudonyms of 64 hex digits. With another secret they are others."""
    key = secret.encode()

    def pseudonym(openid: str) -> str:
        return hmac.digest(key, _PURPOSE + openid.encode(), "sha256").hex()

    return pseudonym
