"""WeChat's errcodes and every way its server can fail us, over a real connection; and that nothing secret leaks."""

import asyncio
import gzip
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx2
import pytest
import respx

from chatassist.adapters.http import open_client
from chatassist.adapters.identity.wechat_login import WeChatIdentity
from chatassist.adapters.wechat import REFUSALS, WeChatApi
from chatassist.domain.errors import (
    ChatAssistError,
    IdentityMisconfigured,
    IdentityUnavailable,
    LoginCodeInvalid,
    WeChatRateLimited,
    WeChatUserBlocked,
)
from tests.fixtures import wechat as behaviour
from tests.fixtures.wechat import MEBIBYTE, RID, LoopbackWeChat, Misbehaviour, refusal, says

CODE = "0f3Kq00w3Secret#Code"
SESSION_KEY = "HyVFkGl5F5OQWJZZaNzBBg=="

DOCUMENTED = {  # what WeChat documents, written out again, not taken from the code
    -1: IdentityUnavailable,
    40029: LoginCodeInvalid,
    40163: LoginCodeInvalid,
    40226: WeChatUserBlocked,
    50002: WeChatUserBlocked,
    45011: WeChatRateLimited,
    45009: IdentityUnavailable,
    40001: IdentityMisconfigured,
    40013: IdentityMisconfigured,
    40125: IdentityMisconfigured,
    40164: IdentityMisconfigured,
    40243: IdentityMisconfigured,
    41002: IdentityMisconfigured,
    41004: IdentityMisconfigured,
    41008: IdentityMisconfigured,
    89503: IdentityMisconfigured,
}

MISBEHAVIOURS = {
    name: getattr(behaviour, name)
    for name in (
        *("reset", "cut_short", "huge", "html", "broken_json", "not_an_object"),
        *("deeply_nested", "not_utf8", "empty", "redirect", "bad_gateway"),
    )
}


@asynccontextmanager
async def an_identity(
    wechat: LoopbackWeChat, *, deadline: float = 5.0, read_timeout: float = 5.0, wrong: str = ""
) -> AsyncIterator[WeChatIdentity]:
    ours = {"appid": wechat.appid, "secret": wechat.secret, **({wrong: "wrong"} if wrong else {})}
    async with open_client(read_timeout=read_timeout) as client:
        api = WeChatApi(client, base_url=wechat.base_url + "/", deadline=deadline, **ours)
        yield WeChatIdentity(api)


@pytest.fixture
async def identity(wechat: LoopbackWeChat) -> AsyncIterator[WeChatIdentity]:
    async with an_identity(wechat) as ready:
        yield ready


def everything_said(error: BaseException | None) -> Iterator[str]:
    """Yield what an error and whatever is printed with it say: its cause, and its context unless suppressed."""
    while error is not None:
        yield f"{error} {error!r} {vars(error)}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def own_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name.startswith("chatassist")]


async def test_a_code_is_exchanged_with_our_credentials(wechat: LoopbackWeChat, identity: WeChatIdentity) -> None:
    assert await identity.identify("alice#1&appid=evil") == wechat.openid_of("alice#1&appid=evil")

    credentials = {"appid": wechat.appid, "secret": wechat.secret}
    assert wechat.requests == [{**credentials, "js_code": "alice#1&appid=evil", "grant_type": "authorization_code"}]


@pytest.mark.parametrize("success", [{}, {"errcode": 0}, {"errcode": "0"}, {"errcode": 0, "errmsg": "ok"}])
async def test_success_is_an_openid_and_no_errcode(
    wechat: LoopbackWeChat, identity: WeChatIdentity, success: dict[str, object]
) -> None:
    wechat.answers[CODE] = {**success, "openid": "oAbC", "session_key": SESSION_KEY, "unionid": "u"}

    assert await identity.identify(CODE) == "oAbC"


@pytest.mark.parametrize(
    "answer",
    [
        *({}, {"errcode": 0}),
        *({"openid": openid} for openid in ("", None, 7, ["o"], "o" * 65)),
        *({"openid": "oAbC", "errcode": errcode} for errcode in (99999, None, False, 0.0, "zero", "9" * 5000)),
    ],
)
async def test_anything_else_is_no_identity(
    wechat: LoopbackWeChat, identity: WeChatIdentity, answer: dict[str, object]
) -> None:
    wechat.answers[CODE] = answer or says(b"{}")

    with pytest.raises(IdentityUnavailable):
        await identity.identify(CODE)


def test_every_errcode_of_the_sheet_has_its_meaning() -> None:
    assert dict(REFUSALS) == DOCUMENTED


@pytest.mark.parametrize("errcode", DOCUMENTED)
async def test_an_errcode_becomes_its_error_after_one_call(
    wechat: LoopbackWeChat, identity: WeChatIdentity, errcode: int
) -> None:
    wechat.answers[CODE] = {"openid": "oAbC", **refusal(errcode)}

    with pytest.raises(ChatAssistError) as caught:
        await identity.identify(CODE)

    assert type(caught.value) is DOCUMENTED[errcode]
    assert len(wechat.requests) == 1


async def test_a_code_is_good_once(wechat: LoopbackWeChat, identity: WeChatIdentity) -> None:
    await identity.identify("alice")

    with pytest.raises(LoginCodeInvalid):
        await identity.identify("alice")


@pytest.mark.parametrize("wrong", ["appid", "secret"])
async def test_wrong_credentials_are_the_operators_matter(wechat: LoopbackWeChat, wrong: str) -> None:
    async with an_identity(wechat, wrong=wrong) as identity:
        with pytest.raises(IdentityMisconfigured):
            await identity.identify(CODE)


@pytest.mark.parametrize("misbehaviour", MISBEHAVIOURS.values(), ids=MISBEHAVIOURS.keys())
async def test_misbehaviour_is_unavailability_after_one_call(
    wechat: LoopbackWeChat, identity: WeChatIdentity, misbehaviour: Misbehaviour
) -> None:
    wechat.answers[CODE] = misbehaviour

    with pytest.raises(IdentityUnavailable) as caught:
        await identity.identify(CODE)

    assert len(wechat.requests) == 1
    assert await identity.identify("alice") == wechat.openid_of("alice")
    assert wechat.secret not in "".join(everything_said(caught.value))


@pytest.mark.parametrize("status", ["201 Created", "302 Found", "404 Not Found", "500 Internal Server Error"])
async def test_only_status_200_can_name_somebody(wechat: LoopbackWeChat, identity: WeChatIdentity, status: str) -> None:
    wechat.answers[CODE] = says(b'{"openid":"oAbC"}', status=status)

    with pytest.raises(IdentityUnavailable):
        await identity.identify(CODE)


async def test_a_huge_body_is_not_taken_in(wechat: LoopbackWeChat, identity: WeChatIdentity) -> None:
    wechat.answers[CODE] = behaviour.huge

    with pytest.raises(IdentityUnavailable):
        await identity.identify(CODE)

    assert wechat.bytes_sent < 32 * MEBIBYTE


async def test_a_compressed_body_is_not_unfolded(wechat: LoopbackWeChat, identity: WeChatIdentity) -> None:
    wechat.answers[CODE] = says(gzip.compress(b'{"openid":"oAbC"}'), "Content-Encoding: gzip")

    with pytest.raises(IdentityUnavailable):
        await identity.identify(CODE)


@pytest.mark.parametrize("slowness", [behaviour.hang, behaviour.drip], ids=["hang", "drip"])
async def test_the_deadline_ends_a_call_that_no_read_timeout_would(
    wechat: LoopbackWeChat, slowness: Misbehaviour
) -> None:
    wechat.answers[CODE] = slowness
    async with an_identity(wechat, deadline=0.1) as identity, asyncio.timeout(2):
        with pytest.raises(IdentityUnavailable):
            await identity.identify(CODE)

    assert len(wechat.requests) == 1


async def test_the_read_timeout_ends_a_silent_call(wechat: LoopbackWeChat) -> None:
    wechat.answers[CODE] = behaviour.hang
    async with an_identity(wechat, read_timeout=0.1) as identity, asyncio.timeout(2):
        with pytest.raises(IdentityUnavailable):
            await identity.identify(CODE)


async def test_a_caller_who_leaves_is_not_held(wechat: LoopbackWeChat, identity: WeChatIdentity) -> None:
    wechat.answers[CODE] = behaviour.hang

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(identity.identify(CODE), 0.05)


async def test_nobody_listening_is_unavailability(wechat: LoopbackWeChat, identity: WeChatIdentity) -> None:
    wechat.base_url = "http://127.0.0.1:9"
    async with an_identity(wechat) as stranded:
        with pytest.raises(IdentityUnavailable):
            await stranded.identify(CODE)


@pytest.mark.parametrize(
    "failure",
    [
        *(httpx2.ConnectError("no such host"), httpx2.ConnectTimeout("slow"), httpx2.ReadTimeout("slow")),
        *(httpx2.ReadError("reset"), httpx2.PoolTimeout("busy"), httpx2.RemoteProtocolError("not HTTP")),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_a_transport_failure_is_unavailability_and_is_not_repeated(
    httpx2_mock: respx.Router, wechat: LoopbackWeChat, failure: Exception
) -> None:
    route = httpx2_mock.get(url__startswith="https://wechat.test/").mock(side_effect=failure)
    wechat.base_url = "https://wechat.test"

    async with an_identity(wechat) as identity:
        with pytest.raises(IdentityUnavailable, match=type(failure).__name__) as caught:
            await identity.identify(CODE)

    assert [call.request.headers["accept-encoding"] for call in route.calls] == ["identity"]
    assert "https" not in "".join(everything_said(caught.value))


@pytest.mark.parametrize(
    ("errcode", "level"),
    [(40163, logging.INFO), (45011, logging.INFO), (45009, logging.ERROR), (40125, logging.ERROR), (7, logging.ERROR)],
)
async def test_a_refusal_is_logged_by_errcode_and_rid(
    wechat: LoopbackWeChat, identity: WeChatIdentity, caplog: pytest.LogCaptureFixture, errcode: int, level: int
) -> None:
    wechat.answers[CODE] = refusal(errcode)

    with caplog.at_level(logging.DEBUG), pytest.raises(ChatAssistError):
        await identity.identify(CODE)

    [record] = own_records(caplog)
    assert (record.levelno, vars(record)["errcode"], vars(record)["rid"]) == (level, errcode, RID)


@pytest.mark.parametrize("errmsg", ["no id at all", "rid: <script>", 7, None, ["rid: 0123456789"]])
async def test_a_strange_errmsg_is_not_logged(
    wechat: LoopbackWeChat, identity: WeChatIdentity, caplog: pytest.LogCaptureFixture, errmsg: object
) -> None:
    wechat.answers[CODE] = {"errcode": "40029", "errmsg": errmsg}  # a number as a string is tolerated

    with caplog.at_level(logging.DEBUG), pytest.raises(LoginCodeInvalid):
        await identity.identify(CODE)

    [record] = own_records(caplog)
    assert vars(record)["rid"] in (None, "0123456789")


@pytest.mark.parametrize(
    "answer",
    [
        {"openid": "oPrivate", "session_key": SESSION_KEY},
        {"errcode": 40029, "errmsg": f"invalid code {CODE} oPrivate {SESSION_KEY}, rid: {RID}"},
        {"errcode": 0, "session_key": SESSION_KEY, "openid": ["oPrivate"]},
        says(json.dumps({"openid": "oPrivate", "session_key": SESSION_KEY}).encode()[:-1]),
        *(behaviour.reset, behaviour.redirect, behaviour.bad_gateway, behaviour.hang),
    ],
    ids=["success", "refusal", "malformed", "broken", "reset", "redirect", "bad_gateway", "hang"],
)
async def test_nothing_secret_is_logged_or_told_by_an_error(
    wechat: LoopbackWeChat, caplog: pytest.LogCaptureFixture, answer: behaviour.Answer | Misbehaviour
) -> None:
    wechat.answers[CODE] = answer
    told: list[str] = []

    async with an_identity(wechat, deadline=0.2) as identity:
        with caplog.at_level(logging.DEBUG):
            try:
                await identity.identify(CODE)
            except ChatAssistError as error:
                told.extend(everything_said(error))

    told.extend(str(vars(record)) for record in own_records(caplog))
    secrets = (wechat.secret, wechat.appid, CODE, "Secret%23Code", SESSION_KEY, "oPrivate", "jscode2session?")
    assert not re.search("|".join(map(re.escape, secrets)), "\n".join(told))
