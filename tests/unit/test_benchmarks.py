"""The yardstick must be true: its vendor says what its load expects, and its load accepts nothing else."""

import asyncio
import json

import pytest

from benchmarks import bare
from benchmarks.__main__ import _line
from benchmarks.bench import Figure
from benchmarks.client import Connection
from benchmarks.history import HITS, KEYWORD, LOOKED_THROUGH, PAGE, check
from benchmarks.library import MUCH, TURNS
from benchmarks.load import Plan, WrongAnswer, check_blocking, check_stream, run
from benchmarks.processes import Failed
from benchmarks.script import INPUT_TOKENS, OUTPUT_TOKENS, TEXT, Pace, spoken
from benchmarks.vendor import Counts, VendorProtocol, whole
from chatassist.adapters.catalogue import OPENAI_COMPATIBLE
from chatassist.adapters.llm.failover import FailoverChatModel
from chatassist.adapters.llm.openai_compatible import OpenAiCompatibleChatModel
from chatassist.adapters.llm.reply_reader import ReplyReader
from chatassist.container.wiring import Container
from chatassist.settings import Settings

USAGE = {"inputTokens": INPUT_TOKENS, "outputTokens": OUTPUT_TOKENS}


def answer(text: str = TEXT, status: str = "complete") -> bytes:
    data = {"status": status, "reply": {"content": text}, "usage": USAGE}
    return json.dumps({"code": 200, "data": data}).encode()


@pytest.mark.parametrize("pieces", [1, 20, 60, 200])
def test_a_reply_has_400_characters_in_as_many_pieces_as_asked(pieces: int) -> None:
    assert len(spoken(pieces)) == pieces
    assert "".join(spoken(pieces)) == TEXT
    assert len(TEXT) == 400


def test_the_last_message_sets_the_pace() -> None:
    messages = [{"role": "user", "content": pace.question()} for pace in (Pace(200), Pace(20, 1000, 5))]
    body = json.dumps({"messages": messages, "stream": True}, ensure_ascii=False).encode()
    assert Pace.asked(body) == Pace(20, 1000, 5)


def test_a_prompt_without_a_pace_is_an_error() -> None:
    with pytest.raises(ValueError, match="no pace"):
        Pace.asked(b"{}")


def test_the_vendor_speaks_as_vendors_do() -> None:
    _, _, chunked = whole(20).partition(b"\r\n\r\n")
    body = b"".join(chunked.split(b"\r\n")[1::2])
    reader = ReplyReader(OPENAI_COMPATIBLE, model="", max_body=100_000)
    texts = [chunk.text for chunk in reader.feed(body)]
    assert (len(texts), "".join(texts), reader.done) == (20, TEXT, True)
    usage = reader.last().usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)


def test_the_service_that_wrappers_are_measured_against_has_none_of_them() -> None:
    settings = Settings.model_validate({"llm": {"base_url": "http://127.0.0.1:1/v1", "model": "m"}})
    with Container.model.override(bare.MODEL):
        assert type(Container(settings=settings).model()) is OpenAiCompatibleChatModel
    assert type(Container(settings=settings).model()) is FailoverChatModel


async def test_one_connection_serves_one_exchange_after_another() -> None:
    made: list[VendorProtocol] = []

    def accept() -> VendorProtocol:
        made.append(VendorProtocol(Counts()))
        return made[-1]

    async with await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0) as server:
        connection = await Connection.to(server.sockets[0].getsockname()[1])
        body = json.dumps({"content": Pace().question()}).encode()
        request = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        answers = [await connection.exchange(request) for _ in range(3)]
        assert (len(set(answers)), connection.status, connection.usable, len(made)) == (1, 200, True, 1)
        connection.close()


def test_the_load_accepts_what_is_complete() -> None:
    check_blocking(200, answer())
    check_stream(200, stream(TEXT[:7], TEXT[7:]))


@pytest.mark.parametrize(
    ("status", "body"), [(500, answer()), (200, answer(TEXT[1:])), (200, answer(status="running")), (200, b"{}")]
)
def test_the_load_refuses_any_other_answer(status: int, body: bytes) -> None:
    with pytest.raises(WrongAnswer):
        check_blocking(status, body)


def test_the_load_refuses_a_stream_that_breaks_off_or_lacks_a_delta() -> None:
    for body in (stream(TEXT).partition(b"event: done")[0], stream(TEXT[1:]), b""):
        with pytest.raises(WrongAnswer):
            check_stream(200, body)


def stream(*texts: str) -> bytes:
    events = ["event: start\ndata: {}\n\n"]
    events += [f"id: {n}\nevent: delta\ndata: {json.dumps({'text': text})}\n\n" for n, text in enumerate(texts, 1)]
    return "".join([*events, "id: 99\nevent: done\ndata: {}\n\n"]).encode()


async def test_the_load_times_the_first_delta_apart_from_the_end_and_lets_connections_arrive_one_after_another() -> (
    None
):
    began: list[float] = []
    now = asyncio.get_running_loop().time

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        began.append(now())
        first, rest = stream(TEXT).split(b"id: 99", 1)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(stream(TEXT))
        writer.write(head + first)
        await asyncio.sleep(0.05)
        writer.write(b"id: 99" + rest)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        plan = Plan(port=port, path="/stream", question="", connections=2, turns=1, seats="", arriving=0.1)
        report = await run(plan, [b"GET / HTTP/1.1\r\n\r\n"])
    assert report.turns == 2
    assert report.p50 - report.first50 > 20  # ms
    assert began[1] - began[0] > 0.02


def test_a_page_is_measured_only_when_it_is_whole() -> None:
    def page(items: int, code: int = 200) -> bytes:
        return json.dumps({"code": code, "data": {"items": [{}] * items}}).encode()

    check(page(20), 20)
    for wrong in (page(19), page(20, 500), b'{"code": 500, "data": null}'):
        with pytest.raises(Failed):
            check(wrong, 20)


def test_the_search_that_is_measured_looks_through_all_that_it_may() -> None:
    """Its hits are as many as announced in the newest 5,000 turns of one in six, and fill no page."""
    turns = range(0, TURNS, 6)[-LOOKED_THROUGH // 2 :]
    assert sum(KEYWORD in f"is the train on time? #{turn}" for turn in turns) == HITS < PAGE
    assert 2 * len(range(0, TURNS, 6)) == MUCH


def test_a_line_of_the_table_measures_against_its_last_subject() -> None:
    figure = Figure(
        scenario="turn", database="mariadb", connections=1, name="p50", unit="ms", rounds={},
        medians={"service": 6.0, "redis": 9.0, "floor": 3.0},
    )  # fmt: skip
    said = " ".join(_line(figure).split())
    assert said.endswith("p50 service 6.00 ms x2.00 redis 9.00 ms x3.00 floor 3.00 ms")
