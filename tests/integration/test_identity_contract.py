"""What every identity provider promises, whoever stands behind it."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from chatassist.adapters.http import open_client
from chatassist.adapters.identity.local_login import LocalIdentity
from chatassist.adapters.identity.wechat_login import WeChatIdentity
from chatassist.adapters.wechat import WeChatApi
from chatassist.domain.errors import LoginCodeInvalid
from chatassist.domain.ports.identity import IdentityProvider
from tests.fixtures.wechat import LoopbackWeChat


@dataclass(frozen=True)
class World:
    """A provider, and how a client comes by a fresh code for somebody."""

    provider: IdentityProvider
    code_of: Callable[[str, int], str]


@pytest.fixture(params=["wechat", "local"])
async def world(request: pytest.FixtureRequest, wechat: LoopbackWeChat) -> AsyncIterator[World]:
    if request.param == "local":
        yield World(LocalIdentity(), lambda person, _: f"dev:{person}")
        return
    async with open_client(read_timeout=5) as client:
        api = WeChatApi(client, base_url=wechat.base_url, appid=wechat.appid, secret=wechat.secret)
        yield World(WeChatIdentity(api), lambda person, number: f"{person}#{number}")


async def test_a_code_stands_for_an_openid_of_at_most_128_characters(world: World) -> None:
    openid = await world.provider.identify(world.code_of("x" * 64, 1))

    assert 0 < len(openid) <= 128


async def test_two_codes_of_one_person_give_one_openid(world: World) -> None:
    first = await world.provider.identify(world.code_of("alice", 1))

    assert await world.provider.identify(world.code_of("alice", 2)) == first


@pytest.mark.parametrize("other", ["bob", "Alice"])
async def test_two_persons_have_two_openids(world: World, other: str) -> None:
    alice = await world.provider.identify(world.code_of("alice", 1))

    assert await world.provider.identify(world.code_of(other, 1)) != alice


@pytest.mark.parametrize(
    "code",
    ["", " ", "\t\n", "dev:alice\n", "dev:\x00", "dev:\ud800", "dev:a\u202eb", "dev:" + "x" * 125],
)
async def test_what_cannot_be_a_code_is_refused_without_asking_anybody(
    world: World, wechat: LoopbackWeChat, code: str
) -> None:
    with pytest.raises(LoginCodeInvalid) as caught:
        await world.provider.identify(code)

    assert wechat.requests == []
    assert not code.strip() or code not in str(caught.value)


@pytest.mark.parametrize(
    "code", ["dev:", "alice", "DEV:alice", "dev:al ice", "dev:al/ice", "dev:爱丽丝", "dev:" + "x" * 65]
)
async def test_a_local_code_is_dev_and_a_plain_name(code: str) -> None:
    with pytest.raises(LoginCodeInvalid):
        await LocalIdentity().identify(code)
