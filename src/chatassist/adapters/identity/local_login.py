"""Sign-in without any account, for a developer's machine: whoever says a name is that person."""

import re

from chatassist.domain.errors import LoginCodeInvalid
from chatassist.domain.ports.identity import IdentityProvider

_CODE = re.compile(r"dev:[A-Za-z0-9_-]{1,64}")


class LocalIdentity(IdentityProvider):
    """Takes the code `dev:<name>` for the openid `dev:<name>`, which no openid of WeChat's can equal."""

    async def identify(self, code: str) -> str:
        """Return the openid; unlike WeChat's, a code may be used again."""
        if not _CODE.fullmatch(code):
            raise LoginCodeInvalid("a local login code is dev:<name>, the name 1 to 64 of [A-Za-z0-9_-]")
        return code
