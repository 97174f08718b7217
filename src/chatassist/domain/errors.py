"""What can go wrong, as one tree. A leaf has a stable `slug`; its HTTP status and sentence are the door's matter.

Messages given to these exceptions are for operators: they name no secret, no user's words and no vendor's body.
"""

from collections.abc import Iterator
from typing import ClassVar


class ChatAssistError(Exception):
    """Root of the tree. `retry_after`: seconds after which the same request may succeed; None: not worth a retry."""

    slug: ClassVar[str] = ""
    retry_after: float | None = None

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(detail or self.slug)
        if retry_after is not None:
            self.retry_after = retry_after


# --- The caller's input ---------------------------------------------------------------------------------------------


class InvalidInput(ChatAssistError):
    """The request can never succeed as it stands, and nothing changed."""


class ContentEmpty(InvalidInput):
    """Nothing is left of the content after trimming."""

    slug = "content_empty"


class ContentTooLong(InvalidInput):
    """The content has more characters (Unicode code points) than the configured limit."""

    slug = "content_too_long"


class ContentInvalid(InvalidInput):
    """The content holds a lone surrogate, or a control character other than tab and newline."""

    slug = "content_invalid"


class ContentBlocked(InvalidInput):
    """Our moderator refused the content; nothing was stored and no vendor was called."""

    slug = "content_blocked"


class ModelUnknown(InvalidInput):
    """The named model is not on the operator's list."""

    slug = "model_unknown"


class KeyInvalid(InvalidInput):
    """A client message id is 1 to 64 of `[A-Za-z0-9_-]`."""

    slug = "client_message_id_invalid"


class IdempotencyMismatch(InvalidInput):
    """The client message id was used before, for another content, session or model; or header and field differ."""

    slug = "idempotency_mismatch"


class LoginCodeInvalid(InvalidInput):
    """The login code is unknown, used or expired: the client must obtain a new one."""

    slug = "wechat_code_invalid"


# --- Who is calling -------------------------------------------------------------------------------------------------


class Unauthenticated(ChatAssistError):
    """The caller has to log in again."""


class TokenMissing(Unauthenticated):
    """No bearer token came with the request."""

    slug = "token_missing"


class TokenInvalid(Unauthenticated):
    """The token was not signed by us for this service, or names nobody."""

    slug = "token_invalid"


class TokenExpired(Unauthenticated):
    """The token's lifetime is over."""

    slug = "token_expired"


class LoginEnded(Unauthenticated):
    """The user logged out of the login this token belongs to."""

    slug = "login_ended"


class Forbidden(ChatAssistError):
    """We know who is calling, and refuse."""


class UserBlocked(Forbidden):
    """The operator blocked this user."""

    slug = "user_blocked"


class WeChatUserBlocked(Forbidden):
    """WeChat refuses this user: frozen, cancelled or a risk (errcodes 40226, 50002)."""

    slug = "wechat_user_blocked"


# --- What is asked for ----------------------------------------------------------------------------------------------


class NotFound(ChatAssistError):
    """It does not exist, or belongs to somebody else: the two are never told apart."""


class SessionNotFound(NotFound):
    """No such chat session of this user."""

    slug = "session_not_found"


class MessageNotFound(NotFound):
    """No such reply of this user."""

    slug = "message_not_found"


# --- Our own limits -------------------------------------------------------------------------------------------------


class Limited(ChatAssistError):
    """One of our own limits is reached; `retry_after` is always enough."""

    retry_after = 60.0


class TooManySends(Limited):
    """The user sent more messages in a minute than allowed."""

    slug = "too_many_sends"


class TooManyLogins(Limited):
    """The client address logged in more often in a minute than allowed."""

    slug = "too_many_logins"


class TooManyReads(Limited):
    """The user read more often in a minute than allowed."""

    slug = "too_many_reads"


class WeChatRateLimited(Limited):
    """WeChat counts this user's logins as too frequent (errcode 45011)."""

    slug = "wechat_rate_limited"


# --- What we depend on ----------------------------------------------------------------------------------------------


class Unavailable(ChatAssistError):
    """Something behind us failed; the request itself was fine."""


class IdentityUnavailable(Unavailable):
    """WeChat is away, busy or out of quota."""

    slug = "identity_unavailable"
    retry_after = 5.0


class IdentityMisconfigured(Unavailable):
    """WeChat refuses our appid, secret or address: the operator has to act."""

    slug = "identity_misconfigured"


class StoreUnavailable(Unavailable):
    """The database does not answer, or not in time. Nothing happened, unless it is CommitUnknown."""

    slug = "database_unavailable"
    retry_after = 2.0


class CommitUnknown(StoreUnavailable):
    """The connection was lost during COMMIT: the unit of work happened whole, or not at all. Look, then decide."""


class ShuttingDown(Unavailable):
    """This process takes no new work; another one, or its successor, will."""

    slug = "shutting_down"
    retry_after = 5.0


class Internal(Unavailable):
    """A defect of ours."""

    slug = "internal"


class ReplyFailed(Unavailable):
    """A reply ended as failed; the slug is stored with it as its reason."""


class ReplyInterrupted(ReplyFailed):
    """The process that produced the reply went away."""

    slug = "reply_interrupted"
    retry_after = 1.0


class ReplyNotStored(ReplyFailed):
    """The reply was produced, but its end could not be stored."""

    slug = "reply_not_stored"
    retry_after = 5.0


class ModelFailed(ReplyFailed):
    """The AI vendor did not deliver. Raised by a ChatModel, before or after its first piece."""


class LlmOverloaded(ModelFailed):
    """The vendor limits us or is overloaded."""

    slug = "llm_overloaded"
    retry_after = 5.0


class LlmUnavailable(ModelFailed):
    """The vendor is down, cut the answer short, answered nonsense or refuses to serve us (unpaid)."""

    slug = "llm_unavailable"
    retry_after = 10.0


class LlmMisconfigured(ModelFailed):
    """The vendor refuses our key, model or address: the operator has to act."""

    slug = "llm_misconfigured"


class LlmTimeout(ModelFailed):
    """The vendor was silent for too long, or the reply's deadline passed."""

    slug = "llm_timeout"
    retry_after = 5.0


class ContextTooLong(InvalidInput):
    """The vendor says that even this prompt is too long for its model."""

    slug = "context_too_long"


def leaves(root: type[ChatAssistError] = ChatAssistError) -> Iterator[type[ChatAssistError]]:
    """Yield every class that has a slug of its own."""
    for kind in root.__subclasses__():
        if "slug" in vars(kind):
            yield kind
        yield from leaves(kind)


def named(slug: str | None) -> type[ChatAssistError]:
    """Return the class a stored reason names; `Internal` for one that this version does not know."""
    return next((kind for kind in leaves() if kind.slug == slug), Internal)
