"""The client for WeChat's server API: one place that knows its address, its errcodes and its habits.

It must not know what its answers are used for. WeChat answers business errors with status 200 and `text/plain`, so
neither status nor content type is trusted to mean success.
"""

import asyncio
import json
import logging
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import httpx2

from chatassist.domain.errors import (
    ChatAssistError,
    IdentityMisconfigured,
    IdentityUnavailable,
    LoginCodeInvalid,
    Unavailable,
    WeChatRateLimited,
    WeChatUserBlocked,
)

logger = logging.getLogger(__name__)

BODY_BYTES = 64 * 1024  # a real answer has about 150 bytes
OPENID_CHARS = 64  # a real openid has 28
_RID = re.compile(r"\brid: ([0-9a-f-]{8,64})")  # WeChat's request id inside errmsg; its support asks for it

REFUSALS: Mapping[int, type[ChatAssistError]] = MappingProxyType(
    {
        -1: IdentityUnavailable,  # system busy
        40029: LoginCodeInvalid,  # expired, malformed, or made for another appid
        40163: LoginCodeInvalid,  # used before
        40226: WeChatUserBlocked,  # high-risk user
        50002: WeChatUserBlocked,  # frozen or cancelled account
        45011: WeChatRateLimited,  # the user's calls in this minute
        45009: IdentityUnavailable,  # the interface's calls today
        40001: IdentityMisconfigured,  # wrong secret
        40013: IdentityMisconfigured,  # wrong appid
        40125: IdentityMisconfigured,  # wrong secret
        40164: IdentityMisconfigured,  # our address is not on the allow-list
        40243: IdentityMisconfigured,  # secret frozen
        41002: IdentityMisconfigured,  # appid missing
        41004: IdentityMisconfigured,  # secret missing
        41008: IdentityMisconfigured,  # code missing: we never send a blank one
        89503: IdentityMisconfigured,  # our address waits for an administrator's consent
    }
)
"""What WeChat's errcodes mean to us; any other is IdentityUnavailable."""

_WORDS: Mapping[int, str] = MappingProxyType(
    {
        -1: "it is busy",
        40001: "the secret is wrong",
        40013: "the appid is wrong",
        40125: "the secret is wrong",
        40164: "this machine's address is not on the mini-program's IP allow-list",
        40243: "the secret is frozen",
        45009: "today's calls are used up",
        89503: "this machine's address waits for an administrator's consent",
    }
)
"""What an operator can do something about."""


class WeChatApi:
    """Calls WeChat in the name of one mini-program.

    `client` is not closed here; `deadline`: seconds for a call from connect to last byte.
    """

    def __init__(
        self, client: httpx2.AsyncClient, *, base_url: str, appid: str, secret: str, deadline: float = 5.0
    ) -> None:
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._credentials = {"appid": appid, "secret": secret}
        self._deadline = deadline

    async def code2session(self, code: str) -> Mapping[str, Any]:
        """Exchange a login code; the answer has an `openid`, a `session_key` and perhaps a `unionid`.

        Sent once: after a timeout the code may be spent, and a repetition would be answered 40163.
        Raises LoginCodeInvalid, WeChatUserBlocked, WeChatRateLimited, IdentityUnavailable, IdentityMisconfigured.
        """
        question = {**self._credentials, "js_code": code, "grant_type": "authorization_code"}
        answer = _decoded(await self._get("/sns/jscode2session", question))
        _refuse(answer)
        openid = answer.get("openid")
        if not isinstance(openid, str) or not 0 < len(openid) <= OPENID_CHARS:
            raise IdentityUnavailable("WeChat's answer has neither an errcode nor an openid")
        return answer

    async def _get(self, path: str, query: Mapping[str, str]) -> bytes:
        try:
            async with asyncio.timeout(self._deadline):
                return await self._read(path, query)
        # Not `from exc`: httpx2's exceptions carry the request, and its URL holds the secret and the code.
        except (httpx2.HTTPError, TimeoutError) as exc:
            raise IdentityUnavailable(f"WeChat did not answer: {type(exc).__name__}") from None

    async def _read(self, path: str, query: Mapping[str, str]) -> bytes:
        # Uncompressed and read raw: otherwise one small compressed piece could unfold to any size.
        headers = {"Accept-Encoding": "identity"}
        url = self._base_url + path
        body = bytearray()
        async with self._client.stream("GET", url, params=query, headers=headers, follow_redirects=False) as response:
            if response.status_code != httpx2.codes.OK:
                raise IdentityUnavailable(f"WeChat answered with status {response.status_code}")
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > BODY_BYTES:
                    raise IdentityUnavailable(f"WeChat answered with more than {BODY_BYTES} bytes")
        return bytes(body)


def _decoded(body: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(body)
    # Not `from exc`: a JSONDecodeError carries the body, which may hold a session_key. RecursionError: deep nesting.
    except (ValueError, RecursionError):
        raise IdentityUnavailable("WeChat's answer is not JSON") from None
    if not isinstance(answer, dict):
        raise IdentityUnavailable("WeChat's answer is not a JSON object")
    return answer


def _refuse(answer: Mapping[str, Any]) -> None:
    """Raise what the answer's errcode stands for, unless it is success: absent, 0 or "0"."""
    errcode = _errcode(answer.get("errcode", 0))
    if errcode == 0:
        return
    kind = IdentityUnavailable if errcode is None else REFUSALS.get(errcode, IdentityUnavailable)
    # What the operator has to look at is an error; a user's stale code or haste is none.
    level = logging.ERROR if issubclass(kind, Unavailable) else logging.INFO
    rid = _RID.search(str(answer.get("errmsg", "")))
    logger.log(level, "WeChat refused a call", extra={"errcode": errcode, "rid": rid[1] if rid else None})
    words = None if errcode is None else _WORDS.get(errcode)
    raise kind(f"WeChat's errcode {errcode}" + (f": {words}" if words else ""))


def _errcode(value: object) -> int | None:
    """Return a number that came as one or as a string of at most 9 characters; None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,8}", value):
        return int(value)
    return value if type(value) is int else None
