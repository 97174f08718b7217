"""What can go wrong, as one tree. A leaf has a stable `slug`; its HTTP status and sentence are the door's matter.

Messages given to these exceptions are for operators: they name no secret, no user's words and no vendor's body.
"""

from collections.abc import Iterator
from typing import ClassVar


class ChatAssistError(Exception):
    """Root of the tree. `retry_after`: seconds after which the same request may succeed; None: not worth a retry."""

    slug: ClassVar[str] = ""
    retry_after: float | None = None

    def __init_subclass__(cls, *, slug: str | None = None, retry_after: float | None = None) -> None:
        """Take a leaf's slug, and the seconds after which it is worth a retry unless an instance knows better."""
        super().__init_subclass__()
        if slug is not None:
            cls.slug = slug
        if retry_after is not None:
            cls.retry_after = retry_after

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(detail or self.slug)
        if retry_after is not None:
            self.retry_after = retry_after


class InvalidInput(ChatAssistError):
    """The request can never succeed as it stands, and nothing changed."""


class ContentEmpty(InvalidInput, slug="content_empty"):
    """Nothing is left of the content after trimming."""


class ContentTooLong(InvalidInput, slug="content_too_long"):
    """The content has more characters (Unicode code points) than the configured limit."""


class ContentInvalid(InvalidInput, slug="content_invalid"):
    """The content holds a lone surrogate, or a control character other than tab and newline."""


class KeywordEmpty(InvalidInput, slug="keyword_empty"):
    """Nothing is left of the keyword after trimming."""


class KeywordTooLong(InvalidInput, slug="keyword_too_long"):
    """The keyword has more than 50 characters (Unicode code points)."""


class ContentBlocked(InvalidInput, slug="content_blocked"):
    """Our moderator refused the content; nothing was stored and no vendor was called."""


class NicknameInvalid(InvalidInput, slug="nickname_invalid"):
    """A nickname has 1 to 32 characters (Unicode code points) after trimming."""


class AvatarInvalid(InvalidInput, slug="avatar_invalid"):
    """The avatar is no `https://` address of 512 characters at most."""


class ModelUnknown(InvalidInput, slug="model_unknown"):
    """The named model is not on the operator's list."""


class KeyInvalid(InvalidInput, slug="client_message_id_invalid"):
    """A client message id is 1 to 64 of `[A-Za-z0-9_-]`."""


class IdempotencyMismatch(InvalidInput, slug="idempotency_mismatch"):
    """The client message id was used before, for another content, session or model; or header and field differ."""


class NotLastTurn(InvalidInput, slug="not_last_turn"):
    """Only the reply to a session's last message can be regenerated."""


class ReplyRunning(InvalidInput, slug="reply_running"):
    """A reply to this message is still being made."""


class BadSeq(InvalidInput, slug="bad_seq"):
    """The event number to go on from is none, or lies beyond the reply's last event."""


class BadCursor(InvalidInput, slug="bad_cursor"):
    """What a list is to go on from is no place in it, or one in another list."""


class TitleEmpty(InvalidInput, slug="title_empty"):
    """Nothing is left of the title after trimming."""


class TitleTooLong(InvalidInput, slug="title_too_long"):
    """The title has more than 60 characters (Unicode code points)."""


class AudioEmpty(InvalidInput, slug="audio_empty"):
    """The recording has no bytes."""


class AudioUnsupported(InvalidInput, slug="audio_unsupported"):
    """The bytes are no audio in a format we take, whatever their name says, or the engine cannot read them."""


class AudioTooLarge(InvalidInput, slug="audio_too_large"):
    """The recording has more bytes than allowed, or than the engine takes."""


class AudioCorrupt(InvalidInput, slug="audio_corrupt"):
    """The recording is broken or cut off: it begins as audio does, but no sound can be read from it."""


class AudioTooShort(InvalidInput, slug="audio_too_short"):
    """The recording holds less than 0.3 seconds of sound, or none at all."""


class AudioTooLong(InvalidInput, slug="audio_too_long"):
    """The recording holds more seconds of sound than the configured limit."""


class AudioNoSpeech(InvalidInput, slug="audio_no_speech"):
    """Nobody is heard to speak."""


class LoginCodeInvalid(InvalidInput, slug="wechat_code_invalid"):
    """The login code is unknown, used or expired: the client must obtain a new one."""


class Unauthenticated(ChatAssistError):
    """The caller has to log in again."""


class TokenMissing(Unauthenticated, slug="token_missing"):
    """No bearer token came with the request."""


class TokenInvalid(Unauthenticated, slug="token_invalid"):
    """The token was not signed by us for this service, or names nobody."""


class TokenExpired(Unauthenticated, slug="token_expired"):
    """The token's lifetime is over."""


class LoginEnded(Unauthenticated, slug="login_ended"):
    """The user logged out of the login this token belongs to."""


class Forbidden(ChatAssistError):
    """We know who is calling, and refuse."""


class UserBlocked(Forbidden, slug="user_blocked"):
    """The operator blocked this user."""


class WeChatUserBlocked(Forbidden, slug="wechat_user_blocked"):
    """WeChat refuses this user: frozen, cancelled or a risk (errcodes 40226, 50002)."""


class WrongAccount(Forbidden, slug="wrong_account"):
    """The login code is another person's than the caller's: an account is deleted by its owner alone."""


class NotFound(ChatAssistError):
    """It does not exist, or belongs to somebody else: the two are never told apart."""


class SessionNotFound(NotFound, slug="session_not_found"):
    """No such chat session of this user."""


class MessageNotFound(NotFound, slug="message_not_found"):
    """No such reply of this user."""


class UndoExpired(NotFound, slug="undo_expired"):
    """No deletion of this user that can still be undone has this token."""


class Limited(ChatAssistError, retry_after=60.0):
    """One of our own limits is reached; `retry_after` is always enough."""


class TooManySends(Limited, slug="too_many_sends"):
    """The user sent more messages in a minute than allowed."""


class TooManyLogins(Limited, slug="too_many_logins"):
    """The client address logged in more often in a minute than allowed."""


class TooManyReads(Limited, slug="too_many_reads"):
    """The user read more often in a minute than allowed."""


class TooManyTranscriptions(Limited, slug="too_many_transcriptions"):
    """The user sent more recordings in a minute than allowed."""


class TooManyExports(Limited, slug="too_many_exports"):
    """As many exports of the user as allowed are under way on this instance."""


class AsrBusy(Limited, slug="asr_busy", retry_after=10.0):
    """As many recordings as allowed are taken in, or wait for the engine, on this instance."""


class LlmBusy(Limited, slug="llm_busy", retry_after=5.0):
    """As many replies as allowed wait for the AI vendors on this instance; nothing was stored."""


class WeChatRateLimited(Limited, slug="wechat_rate_limited"):
    """WeChat counts this user's logins as too frequent (errcode 45011)."""


class Unavailable(ChatAssistError):
    """Something behind us failed; the request itself was fine."""


class IdentityUnavailable(Unavailable, slug="identity_unavailable", retry_after=5.0):
    """WeChat is away, busy or out of quota."""


class IdentityMisconfigured(Unavailable, slug="identity_misconfigured"):
    """WeChat refuses our appid, secret or address: the operator has to act."""


class StoreUnavailable(Unavailable, slug="database_unavailable", retry_after=2.0):
    """The database does not answer, or not in time. Nothing happened, unless it is CommitUnknown."""


class CommitUnknown(StoreUnavailable):
    """The connection was lost during COMMIT: the unit of work happened whole, or not at all. Look, then decide."""


class AsrNotConfigured(Unavailable, slug="asr_not_configured"):
    """No engine for speech to text is configured: the operator has to act."""


class AsrUnavailable(Unavailable, slug="asr_unavailable"):
    """The engine for speech to text failed, is away, or refuses to serve us."""

    retry_after: float | None = 10.0


class AsrTimeout(Unavailable, slug="asr_timeout", retry_after=5.0):
    """The recording was not transcribed in time, queueing included."""


class TtsNotConfigured(Unavailable, slug="tts_not_configured"):
    """No engine for text to speech is configured: the operator has to act."""


class TtsUnavailable(Unavailable, slug="tts_unavailable"):
    """The engine for text to speech failed, is away, or refuses to serve us."""

    retry_after: float | None = 10.0


class TtsTimeout(Unavailable, slug="tts_timeout", retry_after=5.0):
    """The text was not spoken in time, queueing included."""


class ShuttingDown(Unavailable, slug="shutting_down", retry_after=5.0):
    """This process takes no new work; another one, or its successor, will."""


class Internal(Unavailable, slug="internal"):
    """A defect of ours."""


class ReplyFailed(Unavailable):
    """A reply ended as failed; the slug is stored with it as its reason."""


class ReplyInterrupted(ReplyFailed, slug="reply_interrupted", retry_after=1.0):
    """The process that produced the reply went away."""


class ReplyNotStored(ReplyFailed, slug="reply_not_stored", retry_after=5.0):
    """The reply was produced, but its end could not be stored."""


class ModelFailed(ReplyFailed):
    """The AI vendor did not deliver. Raised by a ChatModel, before or after its first piece."""


class LlmOverloaded(ModelFailed, slug="llm_overloaded", retry_after=5.0):
    """The vendor limits us or is overloaded."""


class LlmUnavailable(ModelFailed, slug="llm_unavailable", retry_after=10.0):
    """The vendor is down, cut the answer short, answered nonsense or refuses to serve us (unpaid)."""


class LlmUnpaid(LlmUnavailable):
    """The vendor's account is unpaid, or its quota spent: it serves nobody before the operator acts."""

    retry_after: float | None = None  # paying takes longer than any wait we could name


class LlmMisconfigured(ModelFailed, slug="llm_misconfigured"):
    """The vendor refuses our key, model or address: the operator has to act."""


class LlmKeyRefused(LlmMisconfigured):
    """The vendor refuses our key, and so whatever is asked with it."""


class LlmParameterRefused(LlmMisconfigured):
    """The vendor refuses a parameter: the same prompt may pass if it is `bare`."""


class LlmTimeout(ModelFailed, slug="llm_timeout", retry_after=5.0):
    """The vendor was silent for too long, or the reply's deadline passed."""


class ContextTooLong(InvalidInput, slug="context_too_long"):
    """The vendor says that even this prompt is too long for its model."""


def leaves(root: type[ChatAssistError] = ChatAssistError) -> Iterator[type[ChatAssistError]]:
    """Yield every class that has a slug of its own."""
    for kind in root.__subclasses__():
        if "slug" in vars(kind):
            yield kind
        yield from leaves(kind)


def named(slug: str | None) -> type[ChatAssistError]:
    """Return the class a stored reason names; `Internal` for one that this version does not know."""
    return next((kind for kind in leaves() if kind.slug == slug), Internal)
