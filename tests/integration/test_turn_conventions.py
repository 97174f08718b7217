"""The conventions of the contract on every endpoint of turns, and that the published description lists them."""

import re

import pytest

from tests.fixtures.service import Api, reason_of
from tests.integration.test_conventions import JSON

TURNS = {
    ("POST", "/message"),
    ("POST", "/message/stream"),
    ("GET", "/message/{message_id}"),
    ("DELETE", "/message/{message_id}"),
    ("GET", "/message/{message_id}/stream"),
    ("POST", "/message/{message_id}/stop"),
    ("POST", "/message/{message_id}/regenerate"),
    ("POST", "/message/{message_id}/regenerate/stream"),
    ("PUT", "/message/{message_id}/feedback"),
}


@pytest.mark.parametrize(("method", "path"), sorted(TURNS))
async def test_every_endpoint_of_turns_keeps_the_conventions(quick_api: Api, method: str, path: str) -> None:
    person = await quick_api.login()
    sent = await person.says("x")
    path = "/v1/chat" + path.replace("{message_id}", sent["messageId"])
    anonymous = await quick_api.http.request(method, path)
    assert reason_of(anonymous) == (401, "token_missing")
    forged = await quick_api.http.request(method, path, headers={"Authorization": "Bearer x.y.z"})
    assert reason_of(forged) == (401, "token_invalid")
    for other in {"GET", "POST", "PUT", "DELETE", "PATCH"} - {one for one, known in TURNS if same_path(known, path)}:
        wrong = await quick_api.http.request(other, path, headers=person.bearer)
        assert reason_of(wrong) == (405, "method_not_allowed"), other
        assert wrong.headers["Allow"]
    if method in ("POST", "PUT") and not path.endswith("/stop"):
        for body in (b"{", b"[1]", b'"x"', b'{"content": NaN}', b"\xff"):
            headers = {**JSON, **person.bearer}
            broken = await quick_api.http.request(method, path, content=body, headers=headers)
            assert reason_of(broken) == (400, "json_invalid"), body
        large = await quick_api.http.request(method, path, content=b" " * 262_145, headers={**JSON, **person.bearer})
        assert reason_of(large) == (400, "body_too_large")
    assert reason_of(await quick_api.http.request(method, path + "/", headers=person.bearer)) == (404, "not_found")


def same_path(template: str, path: str) -> bool:
    return re.fullmatch("/v1/chat" + re.sub(r"\{\w+\}", "[^/]+", template), path) is not None


async def test_the_published_description_lists_them(quick_api: Api) -> None:
    paths = (await quick_api.http.get("/openapi.json")).json()["paths"]
    about_turns = {path: paths[path] for path in paths if path.startswith("/v1/chat/message")}
    published = {(name.upper(), path) for path, methods in about_turns.items() for name in methods}
    assert published == {(method, f"/v1/chat{path}") for method, path in TURNS}
