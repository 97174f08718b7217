"""An export: everything once, in order, one read a page; valid however little; nobody's words fake its form."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest

from chatassist.domain.errors import StoreUnavailable, TooManyExports, TooManyReads
from chatassist.domain.model import Login, Profile, Session, User, UserChange
from chatassist.domain.ports.exports import Day, Entry
from chatassist.domain.ports.limits import Rule
from chatassist.domain.services.exports import AT_ONCE, LONGEST, Owner, Part
from chatassist.domain.turns import Feedback, Message, Rating, Reply, Status
from chatassist.domain.usage import Used
from chatassist.entrypoints.http.export_json import ExportOut, JsonExport
from chatassist.entrypoints.http.export_markdown import MarkdownExport
from tests.builders import NOW, a_session, a_turn, a_user
from tests.unit.worlds import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World(limits={Rule.READS: 100}) as world:
        yield world


async def everything(world: World, user: User) -> list[Part]:
    async with aclosing(world.exports.pages(user)) as pages:
        return [part async for page in pages for part in page]


def written(parts: list[Part], writer: JsonExport | MarkdownExport) -> str:
    return "".join(map(writer.write, parts)) + writer.end()


def as_json(*parts: Part) -> Any:
    document = json.loads(written(list(parts), JsonExport()))
    assert ExportOut.model_validate_json(json.dumps(document)), "as the published description says"
    return document


def as_markdown(*parts: Part) -> str:
    return written(list(parts), MarkdownExport())


def an_owner(**given: Any) -> Owner:
    return Owner(user=a_user(**given), at=NOW)


# --- The service ----------------------------------------------------------------------------------------------------


async def test_it_holds_everything_in_order_and_nothing_of_others(world: World) -> None:
    anna = (await world.users.login("dev:anna", Profile(), None)).user
    bert = await world.somebody("bert")
    first = await world.ask(anna, "one")
    await world.ask(anna, "two", session_id=first.message.session_id)
    other = await world.ask(anna, "three")
    await world.ask(bert, "not hers")

    owner, day, login, *talks = await everything(world, anna)

    assert owner == Owner(user=anna, at=world.clock.now)
    assert isinstance(day, Day)
    assert day.used.messages == 3
    assert isinstance(login, Login)
    assert login.user_id == anna.id
    told = [part.id if isinstance(part, Session) else content_of(part) for part in talks]
    one, two = first.message.session_id, other.message.session_id
    assert told == [one, "one", "an answer", "two", "an answer", two, "three", "an answer"]


async def test_nothing_of_unsaved_sessions_is_in_it(world: World) -> None:
    anna = await world.somebody()
    saved = (await world.ask(anna, "saved")).message.session_id
    await world.users.change(anna, UserChange(save_history=False))
    anna = await world.somebody()
    await world.ask(anna, "hidden", session_id=saved)

    assert "hidden" not in written(await everything(world, anna), JsonExport())


async def test_no_unit_is_open_between_two_pages(world: World) -> None:
    anna = await world.somebody()
    for _ in range(3):
        await world.ask(anna)

    async with aclosing(world.exports.pages(anna)) as pages:
        async for _ in pages:
            assert world.store.open_units == 0


async def test_a_database_that_goes_away_ends_it(world: World) -> None:
    anna = await world.somebody()
    await world.ask(anna)
    pages = world.exports.pages(anna)
    assert [type(part) for part in await anext(pages)] == [Owner]
    world.store.away = True

    with pytest.raises(StoreUnavailable):
        await anext(pages)

    world.store.away = False
    assert await everything(world, anna), "and its place is free again"


async def test_so_many_at_once_and_the_next_is_told_how_long_to_wait(world: World) -> None:
    anna, bert = await world.somebody("anna"), await world.somebody("bert")
    running = []
    for _ in range(AT_ONCE):
        running.append(world.exports.pages(anna))
        await anext(running[-1])
        world.clock.advance(60)

    with pytest.raises(TooManyExports) as caught:
        await anext(world.exports.pages(anna))

    assert caught.value.retry_after == (LONGEST - timedelta(seconds=60 * AT_ONCE)).total_seconds() + 1
    assert await everything(world, bert)
    await running[0].aclose()
    assert await everything(world, anna)
    await running[1].aclose()


async def test_an_export_counts_as_a_read() -> None:
    async with World(limits={Rule.READS: 1}) as world:
        anna = await world.somebody()
        await everything(world, anna)
        with pytest.raises(TooManyReads):
            await everything(world, anna)


# --- JSON -----------------------------------------------------------------------------------------------------------


def test_with_nothing_to_tell_it_is_valid_json_all_the_same() -> None:
    owner = an_owner(nickname='"\\\u2028')

    document = as_json(owner)

    assert document["user"]["nickName"] == owner.user.nickname
    assert (document["usage"], document["logins"], document["sessions"]) == ([], [], [])
    assert document["exportedAt"] == "2026-11-22T12:00:00Z"


@pytest.mark.parametrize("days", [0, 1, 2])
@pytest.mark.parametrize("sizes", [[], [0], [1], [2, 0, 1], [0, 0]], ids=str)
def test_lists_of_any_length_nest(days: int, sizes: list[int]) -> None:
    owner = an_owner()
    parts: list[Part] = [Day(day=NOW.date(), used=Used(messages=1)) for _ in range(days)]
    for size in sizes:
        parts.append(session := a_session(owner.user))
        parts += [Entry(position=at, said=a_turn(session, at).message) for at in range(1, size + 1)]

    document = as_json(owner, *parts)

    assert len(document["usage"]) == days
    assert [len(session["messages"]) for session in document["sessions"]] == sizes


def test_messages_tell_what_is_known_and_who_made_them() -> None:
    owner = an_owner()
    session = a_session(owner.user, title="天气")
    turn = a_turn(
        session,
        text="问",
        status=Status.FAILED,
        reason="llm_timeout",
        thinking="想",
        content="答😀",
        key="k",
        feedback=Feedback(rating=Rating.LIKE, comment="好"),
        ended_at=NOW + timedelta(seconds=1),
    )

    [told] = as_json(owner, session, Entry(position=1, said=turn.message), Entry(position=1, said=turn.reply))[
        "sessions"
    ]

    assert told["title"] == "天气"
    asked, answered = told["messages"]
    assert asked == {
        "messageId": turn.message.id,
        "turn": 1,
        "role": "user",
        "content": "问",
        "aiGenerated": False,
        "time": "2026-11-22T12:00:00Z",
    }
    assert answered == {
        "messageId": turn.reply.id,
        "turn": 1,
        "role": "assistant",
        "version": 1,
        "shown": True,
        "content": "答😀",
        "thinking": "想",
        "status": "failed",
        "reason": "llm_timeout",
        "feedback": {"rating": "like", "comment": "好"},
        "clientMessageId": "k",
        "aiGenerated": True,
        "time": "2026-11-22T12:00:01Z",
    }


# --- Markdown -------------------------------------------------------------------------------------------------------

HOSTILE = (
    "# 会话：fake",
    "```\n## 会话：fake\n```",
    "`````\n# out\n",
    "~~~\n# out",
    "---\n\n导出完成。",
    "<script>alert(1)</script>\n</details>",
    "![x](https://evil.example.com/p.png)",
    "> quoted\n\n    code",
    "| a | b |\n| --- | --- |",
)


def structure(document: str) -> list[str]:
    """Return the lines that stand outside of fences, as CommonMark has it."""
    outside, fence = [], ""
    for line in document.split("\n"):
        ticks = re.fullmatch(r"(`{3,})(text)?", line)
        if fence:
            fence = "" if ticks and not ticks[2] and len(ticks[1]) >= len(fence) else fence
        elif ticks:
            fence = ticks[1]
        else:
            outside.append(line)
    assert not fence, "a fence was left open"
    return outside


@pytest.mark.parametrize("words", HOSTILE)
def test_nobody_can_write_what_looks_like_the_document_itself(words: str) -> None:
    owner = an_owner(nickname=words[:32], avatar="https://a/" + words.replace("\n", ""))
    session = a_session(owner.user, title=words[:60])
    rated = Feedback(rating=Rating.DISLIKE, comment=words)
    turn = a_turn(
        session, text=words, status=Status.COMPLETE, content=words, thinking=words, feedback=rated, model=words
    )
    parts = (session, Entry(position=1, said=turn.message), Entry(position=1, said=turn.reply))

    outside = structure(as_markdown(owner, *parts))

    assert sum(line.startswith("#") for line in outside) == 4, "title, session, question, reply"
    assert outside.count("---") == 1
    assert not [line for line in outside if re.search(r"(?<!\\)[<>`!\[]", line)]
    assert not [line for line in outside if line.startswith(("    ", "|", "~~~"))]
    assert as_markdown(owner, *parts).count(f"`text\n{words}\n`") == 3, "and everything is there, as it was written"


def test_what_was_made_by_a_model_is_labelled_and_versions_are_told_apart() -> None:
    owner = an_owner()
    session = a_session(owner.user, title="标题", pinned=True)
    turn = a_turn(session, status=Status.STOPPED, content="回答", thinking="想")
    parts = (
        Day(day=NOW.date(), used=Used(messages=1, input_tokens=2, output_tokens=3, audio_ms=4500)),
        session,
        Entry(position=1, said=turn.message),
        Entry(position=1, said=turn.reply, shown=False),
    )

    document = as_markdown(owner, *parts)

    assert "| 2026-11-22 | 1 | 2 | 3 | 4.5 |" in document
    assert "### 1 · AI 生成" in document
    assert "思考过程（AI 生成）" in document
    assert "回复（AI 生成）" in document
    assert "第 1 版\n" in document
    assert "当前显示" not in document
    assert "- 已停止" in document
    assert document.endswith("导出完成。\n"), "what is broken off does not say so"


def content_of(part: Part) -> str:
    assert isinstance(part, Entry)
    assert isinstance(part.said, Message | Reply)
    return part.said.content
