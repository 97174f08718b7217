"""Sign-in through WeChat: a mini-program's login code becomes the openid that WeChat vouches for."""

from chatassist.adapters.wechat import WeChatApi
from chatassist.domain.errors import LoginCodeInvalid
from chatassist.domain.ports.identity import IdentityProvider

CODE_CHARS = 128  # a real code has 32


class WeChatIdentity(IdentityProvider):
    """Asks WeChat. Of its answer only the openid is kept: nothing here decrypts, so no session_key is needed."""

    def __init__(self, api: WeChatApi) -> None:
        self._api = api

    async def identify(self, code: str) -> str:
        """Return the openid; a code that WeChat cannot have made is refused without a call."""
        if not code.strip() or len(code) > CODE_CHARS or not code.isprintable():
            raise LoginCodeInvalid("not a login code")
        answer = await self._api.code2session(code)
        return str(answer["openid"])
