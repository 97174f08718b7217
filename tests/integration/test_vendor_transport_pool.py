"""The transport to AI vendors: which connection a request takes, and how it is sent."""

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx2
import pytest

from chatassist.adapters.http import open_vendor_client
from tests.fixtures.peer import HEAD, OK, Line, Peer, answers, calling, on_both_loops, says_nothing

# --- The pool -------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_the_connection_used_last_is_used_next_and_the_others_grow_old_and_go() -> None:
    served: list[int] = []

    async def script(line: Line) -> None:
        number = peer.ever
        while await line.request():
            served.append(number)
            await line.say(OK)

    peer = Peer(script)
    async with peer.serving(), calling(peer, idle_seconds=0.4) as client:
        await asyncio.gather(*(client.get("/") for _ in range(3)))
        last, served[:] = served[-1], []
        for _ in range(5):
            await client.get("/")

        assert len(set(served)) == 1
        assert last in (1, 2, 3)
        assert peer.ever == 3
        await peer.until(lambda: peer.open == 0)


@on_both_loops
async def test_an_idle_connection_that_the_vendor_closed_is_replaced_unnoticed() -> None:
    closing = asyncio.Event()

    async def close(line: Line) -> None:
        await closing.wait()

    async with Peer(answers(OK, then=close), answers(OK)).serving() as peer, calling(peer) as client:
        await client.get("/")
        closing.set()
        await peer.until(lambda: peer.open == 0)

        assert (await client.get("/")).text == "ok"
        assert peer.ever == 2


@on_both_loops
async def test_a_close_that_the_loop_has_not_seen_yet_is_seen_before_writing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        peer, loop = Peer(says_nothing), asyncio.get_running_loop()
        peer.port = server.getsockname()[1]
        async with calling(peer) as client:
            for _ in range(3):
                call = asyncio.create_task(client.get("/"))
                line, _ = await loop.sock_accept(server)
                await loop.sock_recv(line, 65536)
                await loop.sock_sendall(line, OK)
                assert (await call).text == "ok"
                line.close()  # and at once, without a turn of the loop, the next request


@on_both_loops
async def test_what_was_written_is_never_repeated() -> None:
    seen: list[bytes] = []

    async def script(line: Line) -> None:
        seen.append(await line.request())
        await line.say(OK)
        seen.append(await line.request())  # and hangs up: nobody knows what became of it

    async with Peer(script).serving() as peer, calling(peer) as client:
        await client.get("/1")
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get("/2")
        await peer.until(lambda: peer.open == 0)

        assert [request.split()[1] for request in seen] == [b"/1", b"/2"]


@pytest.mark.parametrize("together", [True, False], ids=["with the answer", "later"])
@on_both_loops
async def test_an_answer_that_nobody_asked_for_is_given_to_nobody(together: bool) -> None:
    stray = OK.replace(b"ok", b"no")
    go = asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        await line.say(*([OK + stray] if together else [OK]))
        if not together:
            await go.wait()
            await line.say(stray)
        await line.until_left()

    async with Peer(script, answers(OK)).serving() as peer, calling(peer) as client:
        assert (await client.get("/")).text == "ok"
        go.set()
        await peer.until(lambda: peer.open == 0)
        assert (await client.get("/")).text == "ok"
        assert peer.ever == 2


@on_both_loops
async def test_no_more_calls_run_at_a_time_than_may_and_the_others_queue() -> None:
    async with Peer(answers(OK, times=99)).serving() as peer, calling(peer, connections=2) as client:
        texts = [answer.text for answer in await asyncio.gather(*(client.get("/") for _ in range(9)))]

        assert texts == ["ok"] * 9
        assert peer.most <= 2


@on_both_loops
async def test_whoever_queues_for_too_long_is_told_and_costs_no_place() -> None:
    async with Peer(says_nothing).serving() as peer, calling(peer, connections=1, pool=0.1) as client:
        first = asyncio.create_task(client.get("/"))
        await peer.until(lambda: peer.open == 1)
        with pytest.raises(httpx2.PoolTimeout):
            await client.get("/")
        first.cancel()
        await peer.until(lambda: peer.open == 0)

        second = asyncio.create_task(client.get("/"))
        await peer.until(lambda: peer.open == 1)
        second.cancel()


@on_both_loops
async def test_closing_the_client_ends_what_is_open_and_idle() -> None:
    peer = Peer(answers(OK), says_nothing, answers(HEAD + b"\r\n"))
    async with peer.serving():
        async with calling(peer) as client:
            await client.get("/")
            idle = asyncio.create_task(client.get("/"))  # takes the idle connection, which now says nothing
            waiting = asyncio.create_task(client.get("/"))
            await peer.until(lambda: peer.open == 2)
        for call in (idle, waiting):
            with pytest.raises(httpx2.TransportError):
                await call
        await peer.until(lambda: peer.open == 0)


@on_both_loops
async def test_our_own_close_ends_no_body_that_has_no_length() -> None:
    async with Peer(answers(HEAD + b"\r\nsome")).serving() as peer:
        async with calling(peer) as client:
            call = client.build_request("GET", "/")
            answer = await client.send(call, stream=True)
            parts = answer.aiter_raw()
            assert await anext(parts) == b"some"
        with pytest.raises(httpx2.TransportError):
            await anext(parts)


# --- Requests -------------------------------------------------------------------------------------------------------


async def _parts(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@on_both_loops
async def test_a_request_arrives_whole_with_or_without_a_length() -> None:
    seen: list[bytes] = []

    async def script(line: Line) -> None:
        while True:
            seen.append(await line.request())
            await line.say(OK)

    big = b"0123456789" * 100_000
    async with Peer(script).serving() as peer, calling(peer) as client:
        await client.post("/a?b=%20c", content="汉".encode(), headers={"X-Key": "k"})
        await client.post("/", content=big)
        await client.post("/", content=_parts(b"one", b"", b"two"))

        assert seen[0].startswith(f"POST /a?b=%20c HTTP/1.1\r\nHost: 127.0.0.1:{peer.port}\r\n".encode())
        assert b"\r\nX-Key: k\r\n" in seen[0]
        assert seen[0].endswith(b"\r\nContent-Length: 3\r\n\r\n\xe6\xb1\x89")
        assert seen[1].endswith(b"\r\n\r\n" + big)
        assert seen[2].endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
        assert peer.ever == 1


@on_both_loops
async def test_an_answer_before_the_request_is_whole_is_taken_and_the_rest_not_sent() -> None:
    async def refuse(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await left.wait()

    left = asyncio.Event()
    async with Peer(refuse, answers(OK)).serving() as peer, calling(peer) as client:
        answer = await client.post("/", content=_parts(*[b"x" * 1_000_000] * 64))

        assert (answer.status_code, answer.text) == (413, "no")
        assert (await client.get("/")).text == "ok"
        assert peer.ever == 2
        left.set()


@on_both_loops
async def test_a_vendor_that_takes_nothing_in_is_a_timeout() -> None:
    left = asyncio.Event()

    async def script(_: Line) -> None:
        await left.wait()

    async with Peer(script).serving() as peer, calling(peer, write=0.2) as client:
        with pytest.raises(httpx2.WriteTimeout):
            await client.post("/", content=b"x" * 64_000_000)
        left.set()


@pytest.mark.parametrize("value", ["two\nlines", "two\rlines", "\r\nX: y", "nul\0", "bell\a"])
@on_both_loops
async def test_a_header_that_would_make_another_is_not_sent(value: str) -> None:
    async with Peer(says_nothing).serving() as peer, calling(peer) as client:
        with pytest.raises(httpx2.LocalProtocolError):
            await client.get("/", headers={"X-Key": value})
        assert peer.ever == 0


@pytest.mark.parametrize(
    ("method", "url", "expected"),
    [
        ("GET", "ftp://127.0.0.1/", httpx2.UnsupportedProtocol),
        ("HEAD", "http://127.0.0.1/", httpx2.LocalProtocolError),
        ("GET", f"http://{'a' * 64}.test/", httpx2.LocalProtocolError),
    ],
)
@on_both_loops
async def test_what_cannot_be_sent_is_said_before_anything_is(method: str, url: str, expected: type[Exception]) -> None:
    async with calling(Peer(says_nothing)) as client:
        with pytest.raises(expected):
            await client.request(method, url)


@on_both_loops
async def test_neither_proxies_nor_redirects_carry_a_request_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Peer(says_nothing).serving() as elsewhere:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{elsewhere.port}")
        away = b"HTTP/1.1 307 x\r\nLocation: http://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n" % elsewhere.port
        async with Peer(answers(away)).serving() as peer, open_vendor_client(read_timeout=5) as client:
            assert (await client.get(f"http://127.0.0.1:{peer.port}/")).status_code == 307
        assert elsewhere.ever == 0
