"""Conditional GET: whatever shows in an answer changes its tag, and nothing else does."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import URL

from chatassist.adapters.persistence.sql import SqlStore
from chatassist.domain.turns import Status
from tests.builders import NOW, an_end
from tests.fixtures.lists import HISTORY, SESSIONS, edit, look
from tests.fixtures.service import Answer, Api, Person, Serve, settings_for
from tests.fixtures.streams import delete, rate, regenerate, stop, streaming
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails, hangs
from tests.integration.storing import opened
from tests.integration.test_document import llm

INFO = "/v1/user/info"


@dataclass(frozen=True)
class Scene:
    """Somebody with a session of two turns, its database, and the service."""

    api: Api
    person: Person
    store: SqlStore
    vendor: LoopbackVendor
    session: str
    message: str

    async def see(self, path: str, tag: str | None = None) -> Answer:
        query = {"sessionId": self.session} if path == HISTORY else {}
        return await look(self.person, path, tag, **query)

    @property
    def paths(self) -> list[str]:
        return [INFO, SESSIONS, f"{SESSIONS}/{self.session}", HISTORY]


@pytest.fixture
async def scene(any_database: URL, serve: Serve, vendor: LoopbackVendor) -> Any:
    vendor.answers("one", "two")
    api = await serve(settings_for(any_database, llm=llm(vendor)))
    person = await api.login()
    first = await person.says("first")
    second = await person.says("second", sessionId=first["sessionId"])
    async with opened(any_database, pool_size=1) as store:
        yield Scene(api, person, store, vendor, first["sessionId"], second["messageId"])


Write = Callable[[Scene], Awaitable[object]]


async def sends(scene: Scene) -> None:
    scene.vendor.answers("three")
    await scene.person.says("third", sessionId=scene.session)


async def begins(scene: Scene) -> None:
    scene.vendor.answers(hangs("so far"))
    async with streaming(scene.person, "third", sessionId=scene.session) as stream:
        await stream.start()


async def fails_and_begins_again(scene: Scene) -> None:
    scene.vendor.answers(fails(400), "three")
    for _ in range(2):
        await scene.person.send("third", sessionId=scene.session, clientMessageId="k")


async def regenerates(scene: Scene) -> None:
    scene.vendor.answers("better")
    await regenerate(scene.person, scene.message)


async def logs_in(scene: Scene) -> None:
    await scene.api.login(userInfo={"nickName": "somebody else"})


async def entitles(scene: Scene) -> None:
    assert await scene.store.write(lambda tx: tx.sessions.entitle(scene.session, "a model's"))


async def stops(scene: Scene) -> None:
    scene.vendor.answers(hangs("so far"))
    async with streaming(scene.person, "third", sessionId=scene.session) as stream:
        await stop(scene.person, (await stream.start())["messageId"])


WRITES: dict[str, tuple[Write, set[str]]] = {
    "a turn": (sends, {SESSIONS, "session", HISTORY}),
    "a turn that began": (begins, {SESSIONS, "session", HISTORY}),
    "a turn that was stopped": (stops, {SESSIONS, "session", HISTORY}),
    "a turn that failed and began again": (fails_and_begins_again, {SESSIONS, "session", HISTORY}),
    "another version": (regenerates, {SESSIONS, "session", HISTORY}),
    "a rating": (lambda scene: rate(scene.person, scene.message, "like"), {HISTORY}),
    "a deleted turn": (lambda scene: delete(scene.person, scene.message), {SESSIONS, "session", HISTORY}),
    "a name": (lambda scene: edit(scene.person, scene.session, title="another"), {SESSIONS, "session"}),
    "a pin": (lambda scene: edit(scene.person, scene.session, pinned=True), {SESSIONS, "session"}),
    "a model's title": (entitles, {SESSIONS, "session"}),
    "a profile at login": (logs_in, {INFO}),
}
"""What changes something, and the answers in which it shows."""


@pytest.mark.parametrize("what", WRITES)
async def test_whatever_shows_changes_the_tag(scene: Scene, what: str) -> None:
    write, shows_in = WRITES[what]
    before = {path: await scene.see(path) for path in scene.paths}
    for path, answer in before.items():
        held = await scene.see(path, answer.headers["ETag"])
        assert (held.status_code, held.content, held.headers["ETag"]) == (304, b"", answer.headers["ETag"])
        assert held.headers["Cache-Control"] == answer.headers["Cache-Control"] == "private, no-cache"
        assert (await scene.see(path, f'"x", W/{answer.headers["ETag"]}')).status_code == 304
        assert (await scene.see(path, '"x"')).status_code == 200
    await write(scene)
    for path, answer in before.items():
        after = await scene.see(path, answer.headers["ETag"])
        if ("session" if scene.session in path else path) in shows_in:
            assert after.status_code == 200, path
            assert after.json()["data"] != answer.json()["data"], path
        elif after.status_code == 200:
            assert after.json()["data"] == answer.json()["data"], "a tag may change for nothing, but that is all"


async def test_a_session_that_another_one_pushes_down_keeps_its_own_tags(scene: Scene) -> None:
    before = {path: await scene.see(path) for path in scene.paths}
    scene.vendor.answers("three")
    await scene.person.says("elsewhere")
    unchanged = [
        path for path in scene.paths if (await scene.see(path, before[path].headers["ETag"])).status_code == 304
    ]
    assert unchanged == [f"{SESSIONS}/{scene.session}", HISTORY]


async def test_a_tag_is_good_for_one_question_of_one_user(scene: Scene) -> None:
    other = await scene.api.login("dev:other")
    await other.says("mine")
    mine = (await scene.see(SESSIONS)).headers["ETag"]
    assert (await look(other, SESSIONS, mine)).status_code == 200
    assert (await look(scene.person, SESSIONS, mine, limit=1)).status_code == 200
    assert (await look(scene.person, SESSIONS, mine, keyword="f")).status_code == 200
    assert (await look(scene.person, INFO, mine)).status_code == 200
    newest = await look(scene.person, HISTORY, sessionId=scene.session, limit=2)
    for query in ({"limit": 1}, {"before": scene.message}, {"limit": 2, "before": scene.message}):
        again = await look(scene.person, HISTORY, newest.headers["ETag"], sessionId=scene.session, **query)
        assert again.status_code == 200
    swapped = await scene.person.get(
        f"{HISTORY}?limit=2&sessionId={scene.session}", {"If-None-Match": newest.headers["ETag"]}
    )
    assert swapped.status_code == 304, "the order of parameters tells nothing"


async def test_a_tag_opens_nothing_to_whoever_may_not_look(scene: Scene) -> None:
    tags = {path: (await scene.see(path)).headers["ETag"] for path in scene.paths}
    other = await scene.api.login("dev:other")
    assert (await look(other, f"{SESSIONS}/{scene.session}", tags[f"{SESSIONS}/{scene.session}"])).status_code == 404
    assert (await look(other, HISTORY, tags[HISTORY], sessionId=scene.session)).status_code == 404
    assert (await look(other, HISTORY, "*", sessionId=scene.session)).status_code == 404
    await scene.store.write(lambda tx: tx.users.set_blocked(scene.person.user["id"], blocked=True))
    assert {(await scene.see(path, tag)).status_code for path, tag in tags.items()} == {403}


async def test_a_reply_that_somebody_else_ends_changes_the_tags(scene: Scene) -> None:
    scene.vendor.answers(hangs("so far"))
    async with streaming(scene.person, "third", sessionId=scene.session) as stream:
        message = (await stream.start())["messageId"]
        await stream.until_text("so far")
        tags = {path: (await scene.see(path)).headers.get("ETag") for path in scene.paths}
        assert tags[HISTORY] is None
        end = an_end(None, status=Status.STOPPED, at=NOW + timedelta(days=1))
        assert await scene.store.write(lambda tx: tx.replies.finish(message, 0, end))
        seen = {path: (await scene.see(path, tags[path])).status_code for path in scene.paths}
        assert seen[SESSIONS] == seen[f"{SESSIONS}/{scene.session}"] == 200


async def test_a_tag_never_stands_for_less_than_what_was_given(scene: Scene) -> None:
    """However looks and writes race: what is held under a tag that is answered by 304 is what a fresh look gives."""
    held: dict[str, tuple[str, Any]] = {}
    over = asyncio.Event()

    async def look_again_and_again(path: str) -> None:
        while not over.is_set():
            known = held.get(path)
            answer = await scene.see(path, known and known[0])
            if answer.status_code == 200 and "ETag" in answer.headers:
                held[path] = (answer.headers["ETag"], answer.json()["data"])

    looking = [asyncio.create_task(look_again_and_again(path)) for path in scene.paths[1:] for _ in range(2)]
    for number in range(6):
        scene.vendor.answers(f"answer {number}")
        await scene.person.says(f"question {number}", sessionId=scene.session)
        await edit(scene.person, scene.session, title=f"title {number}")
    over.set()
    await asyncio.gather(*looking)
    for path, (tag, data) in held.items():
        if (await scene.see(path, tag)).status_code == 304:
            assert (await scene.see(path)).json()["data"] == data, path
