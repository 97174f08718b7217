"""The transport to AI vendors against bare sockets on loopback, on both loops: answers good and bad, and time."""

import asyncio

import httpx2
import pytest

from tests.fixtures.peer import CHUNKED, HEAD, OK, Line, Peer, answers, calling, hangs_up, on_both_loops

# --- Answers --------------------------------------------------------------------------------------------------------

GOOD = {
    "length": (OK, b"ok"),
    "chunks": (CHUNKED + b"1\r\no\r\n1;ext=1\r\nk\r\n0\r\n\r\n", b"ok"),
    "trailers": (CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n", b"ok"),
    "nothing": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "empty": (HEAD + b"content-length: 0\r\n\r\n", b""),
    "continue": (b"HTTP/1.1 100 Continue\r\nX-A: 1\r\n\r\n" + OK, b"ok"),
    "hints": (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK, b"ok"),
}


@pytest.mark.parametrize("cut", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize(("raw", "body"), GOOD.values(), ids=GOOD)
@on_both_loops
async def test_an_answer_is_read_however_it_is_framed_and_cut(raw: bytes, body: bytes, cut: bool) -> None:
    parts = [raw[place : place + 1] for place in range(len(raw))] if cut else [raw]
    async with Peer(answers(*parts, times=2)).serving() as peer, calling(peer) as client:
        first, second = await client.get("/"), await client.get("/")

        assert (first.content, second.content) == (body, body)
        assert "x-a" not in first.headers
        assert peer.ever == 1


@on_both_loops
async def test_status_words_and_headers_arrive_as_they_were_sent() -> None:
    raw = b"HTTP/1.1 429 Too Many\r\nRetry-After:  7 \r\nX-Twice: a\r\nX-Twice: \xe4b\r\nContent-Length: 0\r\n\r\n"
    async with Peer(answers(raw)).serving() as peer, calling(peer) as client:
        answer = await client.get("/")

        assert (answer.status_code, answer.reason_phrase, answer.http_version) == (429, "Too Many", "HTTP/1.1")
        assert answer.headers["retry-after"] == "7"
        assert [value for name, value in answer.headers.raw if name == b"X-Twice"] == [b"a", b"\xe4b"]


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + b"\r\nall of it",
        HEAD + b"Connection: close\r\nContent-Length: 9\r\n\r\nall of it",
        b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nall of it",
    ],
    ids=["no length", "close", "HTTP/1.0"],
)
@on_both_loops
async def test_a_connection_that_ends_with_its_answer_is_not_used_again(raw: bytes) -> None:
    async with Peer(answers(raw, then=hangs_up), answers(OK)).serving() as peer, calling(peer) as client:
        assert (await client.get("/")).text == "all of it"
        assert (await client.get("/")).text == "ok"
        assert peer.ever == 2


NO_HTTP = {
    "nothing": b"",
    "banner": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "status": b"HTTP/1.1 abc OK\r\n\r\n",
    "version": b"HTTP/7.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no colon": HEAD + b"nonsense\r\n\r\n",
    "two framings": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "negative": HEAD + b"Content-Length: -2\r\n\r\nok",
    "chunk": CHUNKED + b"xyz\r\nok\r\n",
    "upgrade": b"HTTP/1.1 101 Switching\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n\x00\x01",
    "half a head": HEAD + b"Content-Le",
    "half a body": HEAD + b"Content-Length: 9\r\n\r\nok",
    "half a chunk": CHUNKED + b"9\r\nok",
    "no last chunk": CHUNKED + b"2\r\nok\r\n",
}


@pytest.mark.parametrize("raw", NO_HTTP.values(), ids=NO_HTTP)
@on_both_loops
async def test_what_is_no_whole_answer_is_a_protocol_error_and_costs_the_connection(raw: bytes) -> None:
    async with Peer(answers(raw, then=hangs_up), answers(OK)).serving() as peer, calling(peer) as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get("/")
        assert (await client.get("/")).text == "ok"
        assert peer.ever == 2


ENDLESS = {
    "reason": (b"HTTP/1.1 200 ", b"x" * 1000),
    "name": (HEAD, b"x" * 1000),
    "value": (HEAD + b"X: ", b"x" * 1000),
    "headers": (HEAD, b"X-Same: value\r\n" * 50),
    "continues": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
    "extension": (CHUNKED + b"2;", b"x" * 1000),
    "trailers": (CHUNKED + b"0\r\n", b"X-Same: value\r\n" * 50),
}


@pytest.mark.parametrize(("start", "more"), ENDLESS.values(), ids=ENDLESS)
@on_both_loops
async def test_a_head_that_does_not_end_is_cut_off(start: bytes, more: bytes) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.say(start)
        while True:
            await line.say(more)

    async with Peer(script).serving() as peer, calling(peer) as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get("/")
        await peer.until(lambda: peer.open == 0)


@on_both_loops
async def test_what_came_before_a_break_is_read_first() -> None:
    raw = CHUNKED + b"2\r\nok\r\nnonsense"
    async with Peer(answers(raw)).serving() as peer, calling(peer) as client, client.stream("GET", "/") as answer:
        parts = answer.aiter_raw()
        assert await anext(parts) == b"ok"
        with pytest.raises(httpx2.RemoteProtocolError):
            await anext(parts)


@on_both_loops
async def test_a_reset_is_a_read_error() -> None:
    async def reset(line: Line) -> None:
        line.writer.transport.abort()

    async def leave_unread(line: Line) -> None:  # unread bytes make the kernel send RST
        await line.reader.readexactly(1)
        await reset(line)

    async with Peer(leave_unread).serving() as peer, calling(peer) as client:
        with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
            await client.post("/", content=b"x" * 500_000)


# --- Time and cancellation ------------------------------------------------------------------------------------------

SILENT = {"head": b"", "body": HEAD + b"Content-Length: 9\r\n\r\nso", "chunk": CHUNKED + b"9\r\nso"}


@pytest.mark.parametrize("raw", SILENT.values(), ids=SILENT)
@on_both_loops
async def test_silence_ends_a_call_and_its_connection(raw: bytes) -> None:
    async with Peer(answers(raw)).serving() as peer, calling(peer, read=0.2) as client:
        with pytest.raises(httpx2.ReadTimeout):
            await client.get("/")
        await peer.until(lambda: peer.open == 0)


@pytest.mark.parametrize("raw", [OK, CHUNKED + b"2\r\nok\r\n0\r\n\r\n"], ids=["length", "chunks"])
@on_both_loops
async def test_any_byte_counts_as_a_sign_of_life(raw: bytes) -> None:
    async def script(line: Line) -> None:
        await line.request()
        for place in range(0, len(raw), 5):
            await line.say(raw[place : place + 5])
            await asyncio.sleep(0.05)  # in all more than twice the bound
        await line.until_left()

    async with Peer(script).serving() as peer, calling(peer, read=0.2) as client:
        assert (await client.get("/")).text == "ok"


@pytest.mark.parametrize(("first", "second", "ends"), [(5.0, 0.2, True), (0.2, 5.0, False), (0.2, None, False)])
@on_both_loops
async def test_each_call_on_a_connection_has_its_own_patience(first: float, second: float | None, ends: bool) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.say(OK)
        await line.request()
        await asyncio.sleep(0.5)
        await line.say(OK)
        await line.until_left()

    async with Peer(script).serving() as peer, calling(peer, connections=1) as client:
        await client.get("/", timeout=first)
        if ends:
            with pytest.raises(httpx2.ReadTimeout):
                await client.get("/", timeout=second)
        else:
            assert (await client.get("/", timeout=second)).text == "ok"
        assert peer.ever == 1


@on_both_loops
async def test_silence_is_counted_from_the_last_byte() -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.say(CHUNKED)
        await asyncio.sleep(0.2)
        await line.say(b"2\r\nok\r\n")
        await line.until_left()

    async with Peer(script).serving() as peer, calling(peer, read=0.3) as client, client.stream("GET", "/") as answer:
        parts, now = answer.aiter_raw(), asyncio.get_running_loop().time
        assert await anext(parts) == b"ok"
        since = now()
        with pytest.raises(httpx2.ReadTimeout):
            await anext(parts)
        assert 0.28 < now() - since < 0.45


@pytest.mark.parametrize("raw", SILENT.values(), ids=SILENT)
@on_both_loops
async def test_a_cancelled_call_closes_its_socket(raw: bytes) -> None:
    async with Peer(answers(raw)).serving() as peer, calling(peer, connections=1) as client:
        for _ in range(3):
            call = asyncio.create_task(client.get("/"))
            await peer.until(lambda: peer.open == 1)
            await asyncio.sleep(0.02)  # so that in most runs it waits where it is meant to
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await peer.until(lambda: peer.open == 0)


@on_both_loops
async def test_a_caller_that_leaves_amid_a_body_closes_the_socket() -> None:
    async with Peer(answers(CHUNKED + b"2\r\nso\r\n")).serving() as peer, calling(peer) as client:
        async with client.stream("GET", "/") as answer:
            assert await anext(answer.aiter_raw()) == b"so"
        await peer.until(lambda: peer.open == 0)


@on_both_loops
async def test_a_vendor_that_floods_waits_for_its_reader() -> None:
    sent, stuck = 0, asyncio.Event()

    async def script(line: Line) -> None:
        nonlocal sent
        await line.request()
        await line.say(HEAD + b"\r\n")
        while True:
            line.writer.write(b"x" * 65536)
            sent += 65536
            try:
                await asyncio.wait_for(line.writer.drain(), None if stuck.is_set() else 0.5)
            except TimeoutError:
                stuck.set()

    async with Peer(script).serving() as peer, calling(peer) as client, client.stream("GET", "/") as answer:
        await stuck.wait()
        held = sent  # what the kernel's buffers take, and little more
        taken = 0
        async for part in answer.aiter_raw():
            taken += len(part)
            if taken > 2 * held:
                break

        assert held < 32 * 1024 * 1024
