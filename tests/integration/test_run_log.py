"""Runs last: nothing private that went through the service in this run stands in any log line of it.

Where several processes share a run, `nothing_private_is_logged` says the same of each when it ends.
"""

import json

import pytest

from tests.fixtures.logs import RUN
from tests.fixtures.service import SECRET, Api
from tests.fixtures.wechat import LoopbackWeChat


async def test_no_secret_code_openid_token_or_message_was_logged(quick_api: Api, wechat: LoopbackWeChat) -> None:
    """Tokens, codes, openids, names, messages and replies are collected by the fixtures as they pass."""
    person = await quick_api.login("dev:run-log-person", userInfo={"nickName": "不可记录的名字啊啊"})
    said = await person.says("这句话不可以出现在日志里面")
    RUN.keep_private(SECRET, wechat.secret, "sk-loopback-key", said["reply"]["content"])
    assert len(RUN.private) >= 6, "something was collected"
    assert any("turn accepted" in line for line in RUN.lines), "something was logged"
    assert RUN.found() == set()


async def test_the_search_would_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RUN, "lines", ["a line with dev:run-log-person in it"])
    RUN.keep_private("dev:run-log-person")
    assert RUN.found() == {"dev:run-log-person"}


async def test_every_line_of_a_request_carries_its_id(quick_api: Api) -> None:
    person = await quick_api.login("dev:traced-person")
    headers = {"X-Request-Id": "trace-me-12345"}
    await person.send("请跟踪这条消息的处理过程", headers=headers)
    lines = [json.loads(line) for line in RUN.lines if "trace-me-12345" in line]
    assert {line["event"] for line in lines} == {"turn accepted", "reply ended", "answered"}
    assert all(line["request_id"] == "trace-me-12345" for line in lines)
