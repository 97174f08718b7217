"""Tokens: what we sign we read back; whatever differs in anything from what we sign is refused."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import jwt
import pytest
from jwt.types import Options

from chatassist.adapters.identity.jwt_tokens import LEEWAY, JwtTokens, key_id
from chatassist.domain.errors import TokenExpired, TokenInvalid
from chatassist.domain.ports.identity import Claims
from tests.builders import NOW, a_login, a_user

SECRET = "pT5u9VQd0yqkX3hC7rJwZ1mB8sLfEaNgUo2iR6xKt4Y"
PREVIOUS = "Wq8Zr2Lk5Xv1Nc7Mb4Jh9Gf3Ds6Ap0Ot-Iu_YtReEwQ"
STRANGER = "b6ZkT0vYp3cWm8QxR1nLd7HsJf5GaEu9-_iKoMyUtNw"
LOGIN = a_login(a_user(), created_at=NOW, expires_at=NOW + timedelta(hours=1))
CLAIMS: dict[str, Any] = {
    "iss": "chatassist",
    "aud": "chatassist-client",
    "sub": LOGIN.user_id,
    "jti": LOGIN.id,
    "iat": int(NOW.timestamp()),
    "exp": int(NOW.timestamp()) + 3600,
}
HEADER = {"alg": "HS256", "typ": "JWT", "kid": key_id(SECRET)}


def tokens(secret: str = SECRET, previous: str | None = None, at: datetime = NOW) -> JwtTokens:
    return JwtTokens(lambda: at, secret=secret, previous_secret=previous)


def encoded(data: object) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header: object = HEADER, claims: object = CLAIMS, secret: str = SECRET, digest: str = "sha256") -> str:
    """A token made by hand, so that it may break any rule."""
    signed = f"{encoded(header)}.{encoded(claims)}"
    return f"{signed}.{encoded(hmac.new(secret.encode(), signed.encode(), digest).digest())}"


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, _ = token.split(".")
    return json.loads(base64.urlsafe_b64decode(header + "==")), json.loads(base64.urlsafe_b64decode(claims + "=="))


def tampered(token: str) -> str:
    header, _, signature = token.split(".")
    return f"{header}.{encoded({**CLAIMS, 'sub': 'f' * 32})}.{signature}"


def test_a_token_says_whose_it_is() -> None:
    assert tokens().read(tokens().issue(LOGIN)) == Claims(user_id=LOGIN.user_id, login_id=LOGIN.id)


def test_a_token_carries_what_it_must_and_nothing_else() -> None:
    assert parts(tokens().issue(LOGIN)) == (HEADER, CLAIMS)


def test_a_token_made_by_hand_after_our_rules_is_read() -> None:
    assert tokens().read(forged()).user_id == LOGIN.user_id


def test_two_logins_have_two_tokens() -> None:
    assert tokens().issue(LOGIN) != tokens().issue(a_login(a_user(), user_id=LOGIN.user_id))


def test_a_token_expires_with_its_login_by_our_own_clock() -> None:
    token = tokens().issue(LOGIN)
    end = NOW.replace(microsecond=0) + timedelta(hours=1, seconds=LEEWAY)

    assert LEEWAY <= 60
    assert tokens(at=end - timedelta(microseconds=1)).read(token)
    with pytest.raises(TokenExpired):
        tokens(at=end).read(token)


@pytest.mark.parametrize("years", [-30, 30])
def test_the_machines_own_clock_counts_for_nothing(years: int) -> None:
    then = NOW + timedelta(days=365 * years)
    token = tokens().issue(a_login(a_user(), created_at=then, expires_at=then + timedelta(hours=1)))

    assert tokens(at=then).read(token)


def test_a_token_from_an_instance_whose_clock_is_a_little_ahead_is_read() -> None:
    token = tokens().issue(LOGIN)

    assert tokens(at=NOW.replace(microsecond=0) - timedelta(seconds=LEEWAY)).read(token)
    with pytest.raises(TokenInvalid):
        tokens(at=NOW.replace(microsecond=0) - timedelta(seconds=LEEWAY + 1)).read(token)


def test_the_previous_secret_still_reads_but_no_longer_signs() -> None:
    old = tokens(PREVIOUS).issue(LOGIN)
    rotated = tokens(SECRET, PREVIOUS)

    assert rotated.read(old) == rotated.read(rotated.issue(LOGIN))
    assert parts(rotated.issue(LOGIN))[0]["kid"] == key_id(SECRET)


def test_a_retired_secret_reads_nothing() -> None:
    with pytest.raises(TokenInvalid):
        tokens(SECRET, STRANGER).read(tokens(PREVIOUS).issue(LOGIN))


def test_a_key_id_tells_secrets_apart_and_holds_none() -> None:
    ids = {key_id(SECRET), key_id(PREVIOUS), key_id(STRANGER)}

    assert len(ids) == 3
    assert key_id(SECRET) not in (SECRET[:16], hashlib.sha256(SECRET.encode()).hexdigest()[:16])


FOREIGN: dict[str, Callable[[], str]] = {
    "another secret": lambda: forged(secret=STRANGER),
    "another secret under its own kid": lambda: tokens(STRANGER).issue(LOGIN),
    "kid of the previous secret, signed with the current": lambda: forged({**HEADER, "kid": key_id(PREVIOUS)}),
    "signed with the previous secret under the current kid": lambda: forged(secret=PREVIOUS),
    "no kid": lambda: forged({"alg": "HS256", "typ": "JWT"}),
    "kid null": lambda: forged({**HEADER, "kid": None}),
    "kid a number": lambda: forged({**HEADER, "kid": 1}),
    "kid a list": lambda: forged({**HEADER, "kid": [key_id(SECRET)]}),
    "kid a path": lambda: forged({**HEADER, "kid": "../../dev/null"}, secret=""),
    "alg none, unsigned": lambda: f"{encoded({**HEADER, 'alg': 'none'})}.{encoded(CLAIMS)}.",
    "alg none, signed": lambda: forged({**HEADER, "alg": "none"}),
    "alg None": lambda: forged({**HEADER, "alg": "None"}),
    "alg HS512": lambda: forged({**HEADER, "alg": "HS512"}, digest="sha512"),
    "alg HS512, signed with SHA-256": lambda: forged({**HEADER, "alg": "HS512"}),
    "alg RS256": lambda: forged({**HEADER, "alg": "RS256"}),
    "alg hs256": lambda: forged({**HEADER, "alg": "hs256"}),
    "alg a list": lambda: forged({**HEADER, "alg": ["HS256"]}),
    "no alg": lambda: forged({"typ": "JWT", "kid": key_id(SECRET)}),
    "another typ": lambda: forged({**HEADER, "typ": "at+jwt"}),
    "crit": lambda: forged({**HEADER, "crit": ["exp"]}),
    "crit b64": lambda: forged({**HEADER, "crit": ["b64"], "b64": True}),
    "detached": lambda: forged({**HEADER, "crit": ["b64"], "b64": False}),
    "jku": lambda: forged({**HEADER, "jku": "https://evil.test/keys"}),
    "x5u": lambda: forged({**HEADER, "x5u": "https://evil.test/cert"}),
    "jwk": lambda: forged({**HEADER, "jwk": {"kty": "oct", "k": encoded(STRANGER.encode())}}, secret=STRANGER),
    "header a list": lambda: forged([HEADER]),
    "header nested": lambda: forged(b"[" * 1000),
    "payload tampered": lambda: tampered(tokens().issue(LOGIN)),
    "payload a list": lambda: forged(claims=[CLAIMS]),
    "payload not JSON": lambda: forged(claims=b"claims"),
    "payload not UTF-8": lambda: forged(claims=b'{"sub":"\xff"}'),
    "payload nested": lambda: forged(claims=b"[" * 1000),
    "signature cut": lambda: tokens().issue(LOGIN)[:-1],
    "signature padded": lambda: tokens().issue(LOGIN) + "=",
    "signature missing": lambda: tokens().issue(LOGIN).rpartition(".")[0],
    "a fourth part": lambda: tokens().issue(LOGIN) + ".x",
    "encrypted": lambda: "a.b.c.d.e",
    "blank before": lambda: " " + tokens().issue(LOGIN),
    "line end after": lambda: tokens().issue(LOGIN) + "\n",
    "empty": lambda: "",
    "garbage": lambda: "garbage",
    "dots": lambda: "..",
    "not ASCII": lambda: "令牌.令牌.令牌",
    "letters that look like ASCII digits": lambda: tokens().issue(LOGIN).replace(".", ".\uff11", 1),
    "a lone surrogate": lambda: "\ud800.a.b",
    "overlong": lambda: forged({**HEADER, "pad": "x" * 2048}),
    "megabytes": lambda: "a" * 5_000_000 + ".b.c",
}


@pytest.mark.parametrize("made", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_token_that_is_not_ours_is_refused(made: Callable[[], str]) -> None:
    token = made()

    with pytest.raises(TokenInvalid) as caught:
        tokens(SECRET, PREVIOUS).read(token)

    assert not token or token not in str(caught.value)


def test_a_token_of_more_than_2_kib_is_refused_however_good_it_is() -> None:
    padded = json.dumps(CLAIMS).encode()

    assert tokens().read(forged(claims=padded + b" " * 1000))
    with pytest.raises(TokenInvalid):
        tokens().read(forged(claims=padded + b" " * 1400))


@pytest.mark.parametrize("claim", CLAIMS)
def test_no_claim_may_be_missing(claim: str) -> None:
    with pytest.raises(TokenInvalid):
        tokens().read(forged(claims={name: value for name, value in CLAIMS.items() if name != claim}))


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("value", [None, True, "", [], {}, ["chatassist-client"], -1, 1e999, float("nan"), 10**30])
def test_no_claim_may_be_of_another_kind(claim: str, value: object) -> None:
    with pytest.raises(TokenInvalid):
        tokens().read(forged(claims={**CLAIMS, claim: value}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "somebody"},
        {"iss": "chatassist2"},
        {"iss": "chat"},
        {"aud": "somebody"},
        {"aud": ["chatassist-client", "somebody"]},
        {"sub": "F" * 32},
        {"sub": "f" * 31},
        {"sub": "f" * 33},
        {"sub": "f" * 32 + "\n"},
        {"sub": "' OR 1=1 --"},
        {"jti": "not an id"},
        {"jti": 7},
        {"exp": str(CLAIMS["exp"])},
        {"exp": float(CLAIMS["iat"]) + 3600.5},
        {"exp": 253_402_300_800},
        {"iat": str(CLAIMS["iat"])},
        {"iat": CLAIMS["exp"]},
        {"nbf": CLAIMS["exp"]},
        {"nbf": 0},
        {"admin": True},
    ],
    ids=str,
)
def test_no_claim_may_say_anything_else(wrong: dict[str, object]) -> None:
    with pytest.raises(TokenInvalid):
        tokens().read(forged(claims={**CLAIMS, **wrong}))


@pytest.mark.parametrize("exp", [0, 1, int(NOW.timestamp()) - LEEWAY])
def test_an_old_token_is_expired_rather_than_invalid(exp: int) -> None:
    with pytest.raises(TokenExpired):
        tokens().read(forged(claims={**CLAIMS, "exp": exp}))


def test_an_expired_token_of_a_stranger_is_invalid() -> None:
    with pytest.raises(TokenInvalid):
        tokens().read(forged(claims={**CLAIMS, "exp": 0}, secret=STRANGER))


@pytest.mark.parametrize("weak", ["", "tooshort", "x" * 31, "a" * 64])
def test_a_weak_secret_signs_nothing(weak: str) -> None:
    with pytest.raises(ValueError, match="secret") as caught:
        tokens(weak)

    assert not weak or weak not in str(caught.value)


def test_a_weak_previous_secret_reads_nothing_and_an_empty_one_is_none() -> None:
    assert tokens(SECRET, "").issue(LOGIN) == tokens().issue(LOGIN)
    with pytest.raises(ValueError, match="secret"):
        tokens(SECRET, "x" * 40)


def test_secrets_are_not_shown() -> None:
    assert SECRET not in repr(tokens()) + str(tokens())


def test_a_token_is_a_plain_jwt() -> None:
    timeless: Options = {"verify_exp": False, "verify_iat": False}

    assert jwt.decode(tokens().issue(LOGIN), SECRET, ["HS256"], timeless, audience="chatassist-client") == CLAIMS
