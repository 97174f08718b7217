"""Bearer tokens as JWTs, after RFC 8725: one algorithm, one shape, everything else refused.

A token names a user and a login, nothing more; whether the login still stands is not known here.
"""

import base64
import hashlib
import hmac
import re
from datetime import timedelta
from typing import Any

import jwt

from chatassist.adapters.identity.token_secret import check_secret
from chatassist.domain.errors import TokenExpired, TokenInvalid
from chatassist.domain.model import Login, is_id
from chatassist.domain.ports.identity import Claims, Tokens
from chatassist.domain.ports.runtime import Clock

ALGORITHM = "HS256"
ISSUER = "chatassist"
AUDIENCE = "chatassist-client"
LIFETIME = timedelta(days=7)
LEEWAY = 30  # seconds that the clocks of two instances may differ
TOKEN_CHARS = 2048  # ours have about 330
_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_CLAIMS = frozenset({"iss", "aud", "sub", "jti", "iat", "exp"})
_END_OF_TIME = 253_402_300_800  # seconds to the year 10000


class JwtTokens(Tokens):
    """Signs with the current secret; reads what the current or the previous one signed, so secrets can be changed.

    Raises ValueError for a secret that is too weak to sign with.
    """

    def __init__(
        self, clock: Clock, *, secret: str, previous_secret: str | None = None, lifetime: timedelta = LIFETIME
    ) -> None:
        self._clock = clock
        self._lifetime = lifetime
        accepted = [secret, previous_secret] if previous_secret else [secret]
        for each in accepted:
            check_secret(each)
        self._kid = key_id(secret)
        self._keys = {key_id(each): _key(each) for each in accepted}
        self._heads = {self._signed({}, kid).partition(".")[0]: key for kid, key in self._keys.items()}

    @property
    def lifetime(self) -> timedelta:
        """How long a login may live."""
        return self._lifetime

    def issue(self, login: Login) -> str:
        """Return a token that expires with the login, to the whole second."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": login.user_id,
            "jti": login.id,
            "iat": int(login.created_at.timestamp()),
            "exp": int(login.expires_at.timestamp()),
        }
        return self._signed(claims, self._kid)

    def read(self, token: str) -> Claims:
        """Return what the token says. Raises TokenInvalid, TokenExpired."""
        if len(token) > TOKEN_CHARS or not _SHAPE.fullmatch(token):
            raise TokenInvalid("not the shape of a token")
        try:
            claims = self._verified(token)
        except jwt.InvalidTokenError as exc:
            raise TokenInvalid(type(exc).__name__) from exc
        return self._current(claims)

    def _verified(self, token: str) -> dict[str, Any]:
        """Return the claims of a token that one of our secrets signed for this service."""
        known = self._heads.get(token.partition(".")[0])  # as we write it; any other spelling is looked into
        return jwt.decode(
            token,
            known or self._key_for(jwt.get_unverified_header(token)),
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            audience=AUDIENCE,
            # PyJWT would compare times with its own clock; `_current` does it with ours.
            options={"strict_aud": True, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
        )

    def _signed(self, claims: dict[str, Any], kid: str) -> str:
        return jwt.encode(claims, self._keys[kid], algorithm=ALGORITHM, headers={"kid": kid})

    def _key_for(self, header: dict[str, Any]) -> jwt.PyJWK:
        """Return the key the header names. Not one field may differ from what we write: no crit, no jku, no jwk."""
        kid = header.get("kid", "")
        if kid not in self._keys or header != {"alg": ALGORITHM, "typ": "JWT", "kid": kid}:
            raise TokenInvalid("the header is none of ours")
        return self._keys[kid]

    def _current(self, claims: dict[str, Any]) -> Claims:
        """Return the claims if they are just the ones we write, each of its type, and their time has not passed."""
        if claims.keys() != _CLAIMS or not (_is_time(claims["iat"]) and _is_time(claims["exp"])):
            raise TokenInvalid("the claims are none of ours")
        if not (is_id(claims["sub"]) and is_id(claims["jti"])):  # PyJWT has seen to it that both are strings
            raise TokenInvalid("the claims name nobody")
        now = self._clock().timestamp()
        if claims["iat"] > now + LEEWAY:
            raise TokenInvalid("issued in the future")
        if claims["exp"] + LEEWAY <= now:
            raise TokenExpired
        return Claims(user_id=claims["sub"], login_id=claims["jti"])


def _key(secret: str) -> jwt.PyJWK:
    """Return a secret as a key that PyJWT has checked already: given a string it does so again for every token."""
    encoded = base64.urlsafe_b64encode(secret.encode()).rstrip(b"=").decode()
    return jwt.PyJWK.from_dict({"kty": "oct", "alg": ALGORITHM, "k": encoded})


def key_id(secret: str) -> str:
    """Return the name under which tokens refer to a secret.

    It is an HMAC under the secret itself, cut to 64 bits: it tells secrets apart and, as a pseudorandom function's
    output, says no more about a secret than any signature made with it does.
    """
    return hmac.new(secret.encode(), b"chatassist token key id", hashlib.sha256).hexdigest()[:16]


def _is_time(value: object) -> bool:
    """Tell whether a claim is whole seconds since 1970; a bool, a float and a string are not."""
    return type(value) is int and 0 <= value < _END_OF_TIME
