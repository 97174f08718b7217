"""People: one user per openid, a login as long as its token, and logging out for good."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest

from chatassist.adapters.identity.jwt_tokens import JwtTokens
from chatassist.adapters.persistence.memory_people import MemoryUsers
from chatassist.domain.errors import (
    LoginCodeInvalid,
    LoginEnded,
    NicknameInvalid,
    StoreUnavailable,
    TokenExpired,
    TokenInvalid,
    TooManyLogins,
    TooManyReads,
    UserBlocked,
)
from chatassist.domain.model import WECHAT_PLACEHOLDER, Preferences, Profile, User, UserChange
from chatassist.domain.ports.limits import Rule
from chatassist.domain.ports.people import Taken
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.services.users import SignedIn
from tests.builders import NOW, a_login, a_user, new_id
from tests.unit.worlds import TOKEN_LIFETIME, TOKEN_SECRET, Fault, FaultyStore, World

T = TypeVar("T")

ADDRESS = "203.0.113.7"
AVATAR = "https://thirdwx.qlogo.cn/mmopen/132"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


async def login(world: World, name: str = "anna", nickname: str = "", avatar: str = "") -> SignedIn:
    return await world.users.login(f"dev:{name}", Profile(nickname=nickname, avatar=avatar), ADDRESS)


async def user_of(world: World, openid: str) -> User | None:
    return await world.store.read(lambda tx: tx.users.find(openid))


# --- Logging in -----------------------------------------------------------------------------------------------------


async def test_a_first_login_makes_the_user_with_the_defaults_of_the_document(world: World) -> None:
    signed_in = await login(world, nickname=" 安娜 ", avatar=AVATAR)

    user = signed_in.user
    assert (user.openid, user.nickname, user.avatar, user.created_at) == ("dev:anna", "安娜", AVATAR, NOW)
    assert user.preferences == Preferences(is_dark_mode=False, auto_read=False, save_history=True)
    assert await user_of(world, "dev:anna") == user


async def test_a_second_login_finds_the_user_again(world: World) -> None:
    first = await login(world, nickname="安娜")
    world.clock.advance(60)

    second = await login(world)

    assert second.user == first.user
    assert second.token != first.token


async def test_first_logins_at_once_make_one_user(world: World) -> None:
    async with World(beside=world) as other:
        signed_in = await asyncio.gather(*(login(each, nickname="安娜") for each in (world, other) * 5))

    assert len({each.user.id for each in signed_in}) == 1
    assert len({each.token for each in signed_in}) == 10
    assert (await user_of(world, "dev:anna")) == signed_in[0].user


async def test_openids_that_differ_in_case_are_two_people(world: World) -> None:
    assert (await login(world, "anna")).user.id != (await login(world, "Anna")).user.id


async def test_a_login_wears_what_is_usable_of_its_profile_and_never_fails_for_the_rest(world: World) -> None:
    await login(world, nickname="安娜", avatar=AVATAR)

    for nickname, avatar in ((WECHAT_PLACEHOLDER, ""), ("", "wxfile://tmp.png"), ("\ud800", "http://plain")):
        user = (await login(world, nickname=nickname, avatar=avatar)).user
        assert (user.nickname, user.avatar) == ("安娜", AVATAR)

    user = (await login(world, nickname="安" * 40, avatar=f"{AVATAR}?2")).user
    assert (user.nickname, user.avatar) == ("安" * 32, f"{AVATAR}?2")
    assert await user_of(world, "dev:anna") == replace(user, revision=user.revision + 1)


async def test_a_login_changes_nothing_but_name_and_avatar(world: World) -> None:
    chosen = User(id=world.ids(), openid="dev:anna", preferences=Preferences(is_dark_mode=True), created_at=NOW)
    await world.store.write(lambda tx: tx.users.add(chosen))

    assert (await login(world, nickname="Anna")).user == replace(chosen, nickname="Anna")


async def test_a_known_user_with_nothing_new_costs_one_write_the_login(world: World) -> None:
    await login(world, nickname="安娜")
    written = world.store.written

    await login(world, nickname=WECHAT_PLACEHOLDER)

    assert world.store.written == written + 1


async def test_a_login_takes_no_name_back_that_was_changed_meanwhile(world: World) -> None:
    """It knows the user of a moment ago, and has an avatar to store."""
    anna = (await login(world, nickname="安娜", avatar=AVATAR)).user
    change = MemoryUsers.change

    async def late(users: MemoryUsers, user_id: str, wish: UserChange) -> None:
        users._tables.users[anna.id] = replace(anna, nickname="Anna")
        await change(users, user_id, wish)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryUsers, "change", late)
        await login(world, nickname="安娜", avatar=f"{AVATAR}?2")

    changed = await user_of(world, "dev:anna")
    assert changed
    assert (changed.nickname, changed.avatar) == ("Anna", f"{AVATAR}?2")


async def test_the_code_alone_is_the_identity(world: World) -> None:
    with pytest.raises(LoginCodeInvalid):
        await world.users.login("not a code", Profile(nickname="安娜"), ADDRESS)


async def test_a_blocked_user_cannot_log_in(world: World) -> None:
    user = (await login(world)).user
    await world.users.block(user.id, blocked=True)
    written = world.store.written

    with pytest.raises(UserBlocked):
        await login(world)

    assert world.store.written == written


@pytest.mark.parametrize("fault", [Fault.LOST_BEFORE_COMMIT, Fault.LOST_AFTER_COMMIT])
async def test_a_first_login_whose_commit_is_in_doubt_makes_one_user(world: World, fault: Fault) -> None:
    world.store.faults.append(fault)

    user = (await login(world, nickname="安娜")).user

    assert await user_of(world, "dev:anna") == user
    assert (await login(world)).user == user


async def test_a_race_that_is_lost_while_storing_is_looked_up_again() -> None:
    """Two databases' connections may both find nobody; the unique openid decides."""
    async with World() as world:
        racing = Racing(world)
        world.users._store = racing

        user = (await login(world, nickname="安娜")).user

        assert racing.lost == 1
        assert user == replace(racing.winner, nickname="安娜")


class Racing(FaultyStore):
    """A store in which somebody else adds the same user right before our unit of work commits."""

    def __init__(self, world: World) -> None:
        super().__init__(world.store.inner)
        self.winner = User(id=new_id(), openid="dev:anna", created_at=NOW)
        self.lost = 0

    async def write(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        if not self.lost:
            self.lost += 1
            await self.inner.write(lambda tx: tx.users.add(self.winner))
            raise Taken
        return await super().write(work)


async def test_a_store_that_is_away_is_no_login(world: World) -> None:
    world.store.away = True

    with pytest.raises(StoreUnavailable):
        await login(world)


# --- How often ------------------------------------------------------------------------------------------------------


async def test_logins_are_limited_by_address_before_the_code_is_spent() -> None:
    async with World(limits={Rule.LOGINS: 2}) as world:
        await login(world, "anna")
        await login(world, "boris")

        with pytest.raises(TooManyLogins):
            await world.users.login("not even a code", Profile(), ADDRESS)

        await world.users.login("dev:clara", Profile(), "203.0.113.8")
        world.clock.advance(60)
        await login(world, "dora")


async def test_a_login_without_an_address_is_not_limited() -> None:
    async with World(limits={Rule.LOGINS: 1}) as world:
        for _ in range(5):
            await world.users.login("dev:anna", Profile(), None)


async def test_looking_at_oneself_is_limited() -> None:
    async with World(limits={Rule.READS: 1}) as world:
        anna, boris = await world.somebody("anna"), await world.somebody("boris")

        assert await world.users.info(anna) == anna
        assert await world.users.info(boris) == boris
        with pytest.raises(TooManyReads):
            await world.users.info(anna)


# --- Being recognised -----------------------------------------------------------------------------------------------


async def test_a_token_tells_whose_it_is_and_which_login(world: World) -> None:
    signed_in = await login(world)

    caller = await world.users.authenticate(signed_in.token)

    assert caller.user == signed_in.user
    stored = await world.store.read(lambda tx: tx.logins.find(caller.login_id))
    assert stored
    assert stored[0].expires_at == NOW + TOKEN_LIFETIME
    assert signed_in.expires_in == TOKEN_LIFETIME.total_seconds()


async def test_a_token_shows_the_user_as_stored_now(world: World) -> None:
    signed_in = await login(world)
    await login(world, nickname="Anna")

    assert (await world.users.authenticate(signed_in.token)).user.nickname == "Anna"


async def test_a_token_dies_with_its_time(world: World) -> None:
    signed_in = await login(world)
    world.clock.advance(TOKEN_LIFETIME.total_seconds() + 60)

    with pytest.raises(TokenExpired):
        await world.users.authenticate(signed_in.token)


async def test_a_token_that_says_nothing_is_refused_without_a_look_at_the_store(world: World) -> None:
    world.store.away = True

    with pytest.raises(TokenInvalid):
        await world.users.authenticate("nonsense")


async def test_a_well_signed_token_of_no_login_has_ended(world: World) -> None:
    stranger = JwtTokens(world.clock, secret=TOKEN_SECRET).issue(a_login(await world.somebody()))

    with pytest.raises(LoginEnded):
        await world.users.authenticate(stranger)


async def test_a_well_signed_token_that_puts_a_login_to_another_user_is_refused(world: World) -> None:
    anna, boris = await world.somebody("anna"), await world.somebody("boris")
    annas = a_login(anna)
    await world.store.write(lambda tx: tx.logins.add(annas))
    forged = JwtTokens(world.clock, secret=TOKEN_SECRET).issue(replace(annas, user_id=boris.id))

    with pytest.raises(TokenInvalid):
        await world.users.authenticate(forged)


async def test_a_blocked_user_is_refused_but_where_even_the_blocked_may_come(world: World) -> None:
    signed_in = await login(world)
    await world.users.block(signed_in.user.id, blocked=True)

    with pytest.raises(UserBlocked):
        await world.users.authenticate(signed_in.token)

    caller = await world.users.authenticate(signed_in.token, even_blocked=True)
    assert caller.user == replace(signed_in.user, blocked=True)


async def test_even_where_the_blocked_may_come_an_ended_login_may_not(world: World) -> None:
    signed_in = await login(world)
    await world.users.logout(await world.users.authenticate(signed_in.token))

    with pytest.raises(LoginEnded):
        await world.users.authenticate(signed_in.token, even_blocked=True)


# --- Logging out ----------------------------------------------------------------------------------------------------


async def test_logging_out_ends_this_login_alone_and_on_every_instance(world: World) -> None:
    phone, tablet, boris = await login(world), await login(world), await login(world, "boris")

    await world.users.logout(await world.users.authenticate(phone.token))

    async with World(beside=world) as other:
        for each in (world, other):
            with pytest.raises(LoginEnded):
                await each.users.authenticate(phone.token)
            await each.users.authenticate(tablet.token)
            await each.users.authenticate(boris.token)


async def test_logging_out_everywhere_ends_all_logins_of_the_user_and_of_nobody_else(world: World) -> None:
    phone, tablet, boris = await login(world), await login(world), await login(world, "boris")

    await world.users.logout(await world.users.authenticate(phone.token), everywhere=True)

    for signed_in in (phone, tablet):
        with pytest.raises(LoginEnded):
            await world.users.authenticate(signed_in.token)
    await world.users.authenticate(boris.token)


async def test_logging_out_twice_is_harmless(world: World) -> None:
    caller = await world.users.authenticate((await login(world)).token)

    await world.users.logout(caller)
    await world.users.logout(caller)


@pytest.mark.parametrize("fault", [Fault.LOST_BEFORE_COMMIT, Fault.LOST_AFTER_COMMIT])
async def test_a_logout_whose_commit_is_in_doubt_is_done_when_it_returns(world: World, fault: Fault) -> None:
    signed_in = await login(world)
    caller = await world.users.authenticate(signed_in.token)
    world.store.faults.append(fault)

    await world.users.logout(caller)

    with pytest.raises(LoginEnded):
        await world.users.authenticate(signed_in.token)


async def test_a_logout_that_cannot_be_stored_is_not_acknowledged(world: World) -> None:
    caller = await world.users.authenticate((await login(world)).token)
    world.store.away = True

    with pytest.raises(StoreUnavailable):
        await world.users.logout(caller)


# --- Blocking -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["id", "openid"])
async def test_the_operator_blocks_and_unblocks_by_id_or_openid(world: World, name: str) -> None:
    signed_in = await login(world)
    who = getattr(signed_in.user, name)

    assert await world.users.block(who, blocked=True) == replace(signed_in.user, blocked=True)
    with pytest.raises(UserBlocked):
        await world.users.authenticate(signed_in.token)

    assert await world.users.block(who, blocked=False) == signed_in.user
    await world.users.authenticate(signed_in.token)


async def test_nobody_is_blocked_where_nobody_is_meant(world: World) -> None:
    await login(world)

    assert await world.users.block("dev:ANNA", blocked=True) is None
    assert await world.users.block(new_id(), blocked=True) is None


# --- Changing oneself -----------------------------------------------------------------------------------------------


async def test_a_change_answers_the_user_as_he_is_then_whatever_the_caller_knew(world: World) -> None:
    anna = (await login(world)).user
    await world.users.change(anna, UserChange(is_dark_mode=True))

    changed = await world.users.change(anna, UserChange(nickname=" Anna "))

    assert changed == await user_of(world, "dev:anna")
    assert (changed.nickname, changed.preferences.is_dark_mode, changed.revision) == ("Anna", True, 2)


async def test_a_change_of_nothing_writes_nothing(world: World) -> None:
    anna = (await login(world)).user
    written = world.store.written

    assert await world.users.change(anna, UserChange()) == anna
    assert world.store.written == written


async def test_whose_account_is_gone_has_to_log_in_again(world: World) -> None:
    with pytest.raises(LoginEnded):
        await world.users.change(a_user(), UserChange(auto_read=True))


async def test_a_change_is_a_read_as_far_as_limits_go_unless_it_is_refused() -> None:
    async with World(limits={Rule.READS: 1}) as world:
        anna = (await login(world)).user
        with pytest.raises(NicknameInvalid):
            await world.users.change(anna, UserChange(nickname=" "))
        await world.users.change(anna, UserChange(auto_read=True))
        with pytest.raises(TooManyReads):
            await world.users.change(anna, UserChange(auto_read=False))
