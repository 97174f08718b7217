"""The conventions of the contract, on every path, over a real socket."""

import asyncio
import json
import re
from typing import Any

import httpx2
import pytest
from sqlalchemy import URL

from chatassist.domain.errors import leaves
from chatassist.domain.services import Services
from tests.fixtures.service import Answer, Api, Person, Serve, reason_of, settings_for

JSON = {"Content-Type": "application/json"}
FOUR_BYTES = "😀"


async def post_raw(person: Person, body: bytes, headers: dict[str, str] | None = None) -> Answer:
    merged = {**JSON, **person.bearer, **(headers or {})}
    return await person.http.post("/v1/chat/message", content=body, headers=merged)


async def raw(api: Api, request: bytes) -> tuple[bytes, bytes]:
    """Send bytes; return head and body of what comes until the service hangs up."""
    _, _, port = api.base_url.rpartition(":")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/user/info/", "/v1/%00", "/v1/chat/message/%ff/x"])
async def test_an_unknown_path_is_404(quick_api: Api, path: str) -> None:
    assert reason_of(await quick_api.http.get(path)) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/user/info", "GET, PUT"),
        ("GET", "/v1/chat/message", "POST"),
        ("PUT", "/v1/auth/logout", "POST"),
        ("PATCH", "/v1/auth/wechat-login", "POST"),
        ("POST", "/v1/chat/message/0", "DELETE, GET"),
        ("POST", "/healthz", "GET"),
    ],
)
async def test_a_wrong_method_is_405_and_says_which_is_right(
    quick_api: Api, method: str, path: str, allowed: str
) -> None:
    answer = await quick_api.http.request(method, path)
    assert reason_of(answer) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"content": NaN}',
        b'{"content": "x", "ignored": Infinity}',
        b'{"content": "\xff"}',
        b'{"content": "x"} trailing',
        b"[" * 100_000,
        b'{"content": ' + b"9" * 5000 + b"}",
        b"[]",
        b'"text"',
        b"null",
    ],
    ids=lambda body: repr(body[:20]),
)
async def test_what_is_no_json_object_is_400(quick_api: Api, body: bytes) -> None:
    person = await quick_api.login()
    assert reason_of(await post_raw(person, body)) == (400, "json_invalid")


async def test_json_has_to_be_sent_as_json(quick_api: Api) -> None:
    person = await quick_api.login()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = await post_raw(person, b'{"content":"x"}', {"Content-Type": kind})
        assert reason_of(answer) == (400, "json_invalid"), kind
    squeezed = await post_raw(person, b'{"content":"x"}', {"Content-Encoding": "gzip"})
    assert squeezed.status_code in (200, 400), "read as it is, or refused, but never a 500"


@pytest.mark.parametrize("content", [None, 5, True, [], {}, ["x"]], ids=repr)
async def test_a_field_of_the_wrong_type_is_400_and_named(quick_api: Api, content: object) -> None:
    person = await quick_api.login()
    answer = await person.send(content)
    assert reason_of(answer) == (400, "invalid_request")
    assert answer.json()["message"] == "请求参数错误：content"


@pytest.mark.parametrize("field", ["sessionId", "clientMessageId", "model"])
async def test_an_optional_field_of_the_wrong_type_is_400(quick_api: Api, field: str) -> None:
    person = await quick_api.login()
    assert reason_of(await person.post({"content": "x", field: 5})) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "content_empty"),
        (" \n\t\u3000", "content_empty"),
        ("x" * 8001, "content_too_long"),
        (FOUR_BYTES * 8001, "content_too_long"),
        ("x" * 100_000, "content_too_long"),
        ("a\x00b", "content_invalid"),
        ("a\rb", "content_invalid"),
        ("a\x7fb", "content_invalid"),
        ("a\x85b", "content_invalid"),
        ("a\ud800b", "content_invalid"),
    ],
    ids=lambda value: ascii(value)[:20],
)
async def test_content_is_checked(quick_api: Api, content: str, reason: str) -> None:
    person = await quick_api.login()
    body = json.dumps({"content": content}).encode()
    assert reason_of(await post_raw(person, body)) == (400, reason)


async def test_the_longest_content_and_every_kind_of_character_come_through(api: Api) -> None:
    person = await api.login()
    for content in (
        FOUR_BYTES * 8000,
        "  \tLine one\nline two\u2028 中文 שלום e\u0301  ",
        "'; DROP TABLE users; --%_\\",
    ):
        data = await person.says(content, clientMessageId="c-" + str(len(content)))
        again = await person.says(content.strip(), clientMessageId="c-" + str(len(content)))
        assert again == {**data, "replayed": True}, "what was stored equals what was sent"


@pytest.mark.parametrize("key", ["", "a b", "x" * 65, "ä", "a/b", "a\n"])
async def test_a_bad_client_message_id_is_400(quick_api: Api, key: str) -> None:
    person = await quick_api.login()
    assert reason_of(await person.send("x", clientMessageId=key)) == (400, "client_message_id_invalid")


async def test_header_and_field_may_not_differ(quick_api: Api) -> None:
    person = await quick_api.login()
    answer = await person.send("x", clientMessageId="one", headers={"Idempotency-Key": "two"})
    assert reason_of(answer) == (400, "idempotency_mismatch")
    twice = [("Idempotency-Key", "one"), ("Idempotency-Key", "two"), *person.bearer.items()]
    answer = await quick_api.http.post("/v1/chat/message", json={"content": "x"}, headers=twice)
    assert reason_of(answer) == (400, "idempotency_mismatch")


async def test_fields_go_by_their_names_on_the_wire_alone(quick_api: Api) -> None:
    person = await quick_api.login()
    assert (await person.says("x", session_id="nonsense", client_message_id="a b"))["status"] == "complete"


async def test_a_lone_surrogate_is_invalid_in_any_field(quick_api: Api) -> None:
    person = await quick_api.login()
    for field in ("sessionId", "model"):
        body = json.dumps({"content": "x", field: "a\ud800"}).encode()
        assert reason_of(await post_raw(person, body)) == (400, "content_invalid")


async def test_json_is_utf_8(quick_api: Api) -> None:
    person = await quick_api.login()
    for encoding in ("utf-16", "utf-32"):
        assert reason_of(await post_raw(person, '{"content":"x"}'.encode(encoding))) == (400, "json_invalid")


async def test_a_foreign_session_is_like_one_that_never_existed(api: Api) -> None:
    alice, bob = await api.login("dev:alice"), await api.login("dev:bob")
    of_alice = (await alice.says("mine"))["sessionId"]
    answers = [await bob.send("hi", sessionId=session) for session in (of_alice, "0" * 32, "nonsense")]
    assert {reason_of(answer) for answer in answers} == {(404, "session_not_found")}
    assert len({_without_request_id(answer) for answer in answers}) == 1


async def test_a_foreign_reply_is_like_one_that_never_existed(api: Api) -> None:
    alice, bob = await api.login("dev:alice"), await api.login("dev:bob")
    sent = await alice.says("mine")
    ids = (sent["messageId"], sent["userMessageId"], "0" * 32, "nonsense", "%00", "%F0%9F%98%80")
    answers = [await bob.get(f"/v1/chat/message/{each}") for each in ids]
    answers.append(await alice.get(f"/v1/chat/message/{sent['userMessageId']}"))
    assert {reason_of(answer) for answer in answers} == {(404, "message_not_found")}
    assert len({_without_request_id(answer) for answer in answers}) == 1


async def test_a_body_over_the_cap_is_400_whether_its_length_is_told_or_not(quick_api: Api) -> None:
    person = await quick_api.login()
    big = b'{"content":"' + b"x" * 30_000_000 + b'"}'
    assert reason_of(await post_raw(person, big)) == (400, "body_too_large")

    async def untold() -> Any:
        for _ in range(300):
            yield b"x" * 100_000

    answer = await person.http.post("/v1/chat/message", content=untold(), headers={**JSON, **person.bearer})
    assert reason_of(answer) == (400, "body_too_large")
    just_over = b'{"content":"x"}'.ljust(262_145)
    assert reason_of(await post_raw(person, just_over)) == (400, "body_too_large")
    assert (await post_raw(person, b'{"content":"x"}'.ljust(262_144))).status_code == 200


async def test_unknown_fields_are_ignored(quick_api: Api) -> None:
    person = await quick_api.login()
    assert (await person.says("x", unknown={"deep": [1, 2]}))["status"] == "complete"


async def test_an_unknown_model_is_400_and_the_configured_one_can_be_named(quick_api: Api) -> None:
    person = await quick_api.login()
    assert reason_of(await person.send("x", model="gpt-99")) == (400, "model_unknown")
    assert (await person.says("x", model="scripted"))["model"] == "scripted"


@pytest.mark.parametrize("given", ["abcdefgh", "A.b_c-" + "1" * 58])
async def test_a_good_request_id_is_taken_over(quick_api: Api, given: str) -> None:
    answer = await quick_api.http.get("/v1/user/info", headers={"X-Request-Id": given})
    assert answer.headers["X-Request-Id"] == given == answer.json()["requestId"]


@pytest.mark.parametrize("given", ["short", "x" * 65, "has space in it", "<script>alert(1)</script>", "中文中文中文"])
async def test_a_hostile_request_id_is_not_mirrored(quick_api: Api, given: str) -> None:
    answer = await quick_api.http.get("/healthz", headers=[(b"X-Request-Id", given.encode())])
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])


async def test_every_answer_has_a_request_id_and_says_how_long_it_may_be_kept(quick_api: Api) -> None:
    person = await quick_api.login()
    for path in ("/v1/user/info", "/v1/nothing", "/healthz", "/readyz", "/openapi.json"):
        answer = await person.get(path)
        assert answer.headers["X-Request-Id"]
        kept = "private, no-cache" if path == "/v1/user/info" else "no-store"
        assert answer.headers["Cache-Control"] == kept


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer  x", "Basic dXNlcjpwYXNz", "token abc", "Bearer a b c"]
)
async def test_without_a_bearer_token_nothing_opens(quick_api: Api, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    status, reason = reason_of(await quick_api.http.get("/v1/user/info", headers=headers))
    assert (status, reason in ("token_missing", "token_invalid")) == (401, True)


async def test_a_token_counts_in_the_header_alone(quick_api: Api) -> None:
    person = await quick_api.login()
    query = await quick_api.http.get("/v1/user/info", params={"token": person.token, "access_token": person.token})
    cookie = await quick_api.http.get("/v1/user/info", headers={"Cookie": f"token={person.token}"})
    assert reason_of(query) == reason_of(cookie) == (401, "token_missing")


async def test_who_is_not_logged_in_is_told_so_before_his_fields_are_judged(quick_api: Api) -> None:
    answer = await quick_api.http.post("/v1/chat/message", json={"content": 5})
    assert reason_of(answer) == (401, "token_missing")


async def test_a_forged_token_is_401(quick_api: Api) -> None:
    person = await quick_api.login()
    head, body, signature = person.token.split(".")
    for forged in (f"{head}.{body}.", f"{head}.{body}.{signature[::-1]}", "eyJhbGciOiJub25lIn0.e30.", "x" * 5000):
        answer = await quick_api.http.get("/v1/user/info", headers={"Authorization": f"Bearer {forged}"})
        assert reason_of(answer) == (401, "token_invalid")


async def test_what_is_no_http_gets_the_envelope_too(quick_api: Api) -> None:
    head, body = await raw(quick_api, b"NONSENSE\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    envelope = json.loads(body)
    assert (envelope["code"], envelope["reason"], envelope["data"]) == (400, "http_invalid", None)
    assert f"x-request-id: {envelope['requestId']}".encode() in head.lower()


async def test_a_defect_is_a_500_without_a_word_of_it(
    quick_api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: Services) -> None:
        raise RuntimeError("secret-of-the-defect")

    monkeypatch.setattr(Services, "check", broken)
    answer = await quick_api.http.get("/readyz")
    assert reason_of(answer) == (500, "internal")
    assert "secret-of-the-defect" not in answer.text
    assert "unhandled" in caplog.messages


async def test_sends_are_limited_per_user(sqlite_url: URL, serve: Serve) -> None:
    api = await serve(settings_for(sqlite_url, limits={"sends_per_minute": 20}))
    alice, bob = await api.login("dev:alice"), await api.login("dev:bob")
    answers = await asyncio.gather(*(alice.send("x") for _ in range(25)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 5, "exactly, however they race"
    assert {reason_of(answer) for answer in refused} == {(429, "too_many_sends")}
    assert all(0 < int(answer.headers["Retry-After"]) <= 60 for answer in refused)
    assert (await bob.send("x")).status_code == 200


async def test_repetitions_at_once_are_counted_once(sqlite_url: URL, serve: Serve) -> None:
    api = await serve(settings_for(sqlite_url, limits={"sends_per_minute": 2}))
    person = await api.login()
    answers = await asyncio.gather(*(person.send("x", clientMessageId="same") for _ in range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["data"]["messageId"] for answer in answers}) == 1
    assert [(await person.send("y")).status_code for _ in range(2)] == [200, 429]


async def test_reads_are_limited_per_user(sqlite_url: URL, serve: Serve) -> None:
    api = await serve(settings_for(sqlite_url, limits={"reads_per_minute": 2}))
    person = await api.login()
    answers = [await person.get("/v1/user/info") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert reason_of(answers[-1]) == (429, "too_many_reads")


async def test_logins_are_limited_per_address_behind_a_trusted_proxy(sqlite_url: URL, serve: Serve) -> None:
    limits, http = {"logins_per_minute": 2}, {"trusted_proxies": ("127.0.0.1",)}
    api = await serve(settings_for(sqlite_url, limits=limits, http=http))

    async def login(address: str) -> int:
        headers = {"X-Forwarded-For": address}
        answer = await api.http.post("/v1/auth/wechat-login", json={"code": "dev:a"}, headers=headers)
        return int(answer.status_code)

    assert [await login("203.0.113.7") for _ in range(3)] == [200, 200, 429]
    assert await login("203.0.113.8") == 200
    assert await login("9.9.9.9, 203.0.113.7") == 429, "what the client itself claims does not count"


async def test_logins_from_this_machine_are_not_limited_and_cannot_pretend(
    sqlite_url: URL, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    api = await serve(settings_for(sqlite_url, limits={"logins_per_minute": 1}))
    for number in range(3):
        headers = {"X-Forwarded-For": f"203.0.113.{number}"}
        answer = await api.http.post("/v1/auth/wechat-login", json={"code": "dev:a"}, headers=headers)
        assert answer.status_code == 200
    assert sum("forwarding headers" in message for message in caplog.messages) == 1, "said once"


async def test_browsers_of_other_origins_are_kept_out_unless_allowed(sqlite_url: URL, serve: Serve) -> None:
    closed = await serve(settings_for(sqlite_url))
    asking = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
    assert "Access-Control-Allow-Origin" not in (await closed.http.get("/healthz", headers=asking)).headers
    opened = await serve(settings_for(sqlite_url, http={"cors_origins": ("https://app.example.com",)}))
    preflight = await opened.http.options("/v1/chat/message", headers=asking)
    assert preflight.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    for header in ("Authorization", "Idempotency-Key", "Last-Event-ID"):
        wish = {**asking, "Access-Control-Request-Headers": header}
        assert (await opened.http.options("/v1/chat/message", headers=wish)).status_code == 200, header
    other = await opened.http.get("/healthz", headers={"Origin": "https://evil.example.com"})
    assert "Access-Control-Allow-Origin" not in other.headers


async def test_a_blocked_user_can_only_log_out(api: Api, any_database: URL, serve: Serve) -> None:
    from chatassist.container import open_services

    person = await api.login("dev:mallory")
    async with open_services(settings_for(any_database)) as elsewhere:
        blocked = await elsewhere.users.block(person.user["id"], blocked=True)
        assert blocked is not None
        for answer in (await person.get("/v1/user/info"), await person.send("x")):
            assert reason_of(answer) == (403, "user_blocked")
        login = await api.http.post("/v1/auth/wechat-login", json={"code": "dev:mallory"})
        assert reason_of(login) == (403, "user_blocked")
        await elsewhere.users.block("dev:mallory", blocked=False)
    assert (await person.get("/v1/user/info")).status_code == 200


async def test_docs_can_be_switched_off(sqlite_url: URL, serve: Serve) -> None:
    api = await serve(settings_for(sqlite_url, http={"docs": False}))
    for path in ("/docs", "/openapi.json", "/redoc"):
        assert reason_of(await api.http.get(path)) == (404, "not_found")


async def test_the_published_description_types_every_envelope_and_every_reason(quick_api: Api) -> None:
    described = (await quick_api.http.get("/openapi.json")).json()
    known = {kind.slug for kind in leaves()} - {"not_found", "method_not_allowed", "http_invalid"}
    every_reason = set(described["components"]["schemas"]["Refusal"]["properties"]["reason"]["enum"])
    assert every_reason == {kind.slug for kind in leaves()}
    assert set(described["components"]["schemas"]["Refusal"]["required"]) >= {"code", "message", "data", "reason"}
    shown = described["components"]["schemas"]["MessageOut"]["required"]
    assert "messageId" in shown
    assert not {"reason", "finishReason", "model", "usage"} & set(shown), "absent where they say nothing"
    published = set()
    for path, operations in described["paths"].items():
        for operation in operations.values():
            answers = operation["responses"]
            assert "422" not in answers
            if path.endswith("/stream"):
                assert list(answers["200"]["content"]) == ["text/event-stream"], path
            else:
                assert answers["200"]["content"]["application/json"]["schema"]["$ref"], path
            if path.startswith("/v1"):
                assert {"400", "401"} & set(answers), path
                schema = answers["500"]["content"]["application/json"]["schema"]
                always = {"database_unavailable", "internal", "shutting_down"}
                assert always <= set(schema["properties"]["reason"]["enum"]), path
            for status in set(answers) & {"400", "401", "403", "404", "429", "500"}:
                schema = answers[status]["content"]["application/json"]["schema"]
                assert schema["$ref"].endswith("/Refusal")
                published |= set(schema["properties"]["reason"]["enum"])
    voices = {"tts_not_configured", "tts_unavailable", "tts_timeout"}  # no endpoint speaks yet: the doctor alone does
    assert published == known - voices
    assert "HTTPValidationError" not in described["components"]["schemas"]


def _without_request_id(answer: httpx2.Response) -> str:
    return re.sub(r'"requestId":"[^"]+"', "", answer.text)
