"""What tests of the client of docs/client.md share: a service, and whether a page shows what it holds."""

from typing import Any

from sqlalchemy import URL

from tests.fixtures.miniprogram import MiniProgram
from tests.fixtures.service import Api, Serve, data_of, settings_for
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import event, piece

CODE = "dev:somebody"  # what the mini-program logs in with
SAID = ("你好，", "世界 😀\n", 'a "b" \\ \u2028', "é\t", "𠮷 ok")
START = ["POST /auth/wechat-login", "POST /chat/message/stream"]


async def served(url: URL, serve: Serve, vendor: LoopbackVendor, **more: dict[str, Any]) -> Api:
    llm = {"base_url": vendor.base_url, "api_key": "sk-loopback-key", "model": "loopback-1", "max_calls": 1}
    api: Api = await serve(settings_for(url, llm=llm, **more))
    return api


def thinks(text: str) -> bytes:
    return event(piece(choices=[{"index": 0, "delta": {"reasoning_content": text}, "finish_reason": None}]))


async def held(api: Api, message_id: str) -> dict[str, Any]:
    """Return the reply as the service holds it, once it is over."""
    person = await api.login(CODE)
    return dict(data_of(await person.get(f"/v1/chat/message/{message_id}?waitSeconds=25")))


async def assert_true(api: Api, phone: MiniProgram, status: str = "complete", name: str = "reply") -> dict[str, Any]:
    """Make sure that the reply is over as it should be, and that the page shows what the service holds."""
    shown = await phone.until_over(name)
    kept = await held(api, shown["messageId"])
    assert (shown["status"], shown["text"]) == (kept["status"], kept["content"])
    assert shown["status"] == status, shown["error"]
    return shown
