"""What every answer looks like, and the one table from errors to statuses and from reasons to Chinese sentences."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Generic, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route

from chatassist.domain import errors
from chatassist.domain.errors import ChatAssistError, InvalidInput, NotFound
from chatassist.domain.turns import Turn
from chatassist.entrypoints.http.schemas import Wire

T = TypeVar("T")
log = logging.getLogger(__name__)


class InvalidRequest(InvalidInput, slug="invalid_request"):
    """A field, parameter or header is missing or has the wrong type; `message` names it."""

    def __init__(self, field: str = "") -> None:
        super().__init__(field)
        self.field = field


class JsonInvalid(InvalidInput, slug="json_invalid"):
    """The body is not JSON, or not sent as JSON."""


class FormInvalid(InvalidInput, slug="form_invalid"):
    """The body is no form (`multipart/form-data`), is broken off, or has a second file or too many fields."""


class AudioMissing(InvalidInput, slug="audio_missing"):
    """The form has no file in its field `audio`."""


class MalformedHttp(InvalidInput, slug="http_invalid"):
    """What came is no HTTP request."""


class BodyTooLarge(InvalidInput, slug="body_too_large"):
    """The body has more bytes than allowed."""


class PathNotFound(NotFound, slug="not_found"):
    """There is no such endpoint."""


class MethodNotAllowed(ChatAssistError, slug="method_not_allowed"):
    """The endpoint exists, for another method."""


class TurnFailed(ChatAssistError):
    """A blocking send whose reply failed; answered by the reply's reason, with the turn's ids beside it."""

    def __init__(self, turn: Turn) -> None:
        super().__init__(retry_after=errors.named(turn.reply.reason).retry_after)
        self.turn = turn


STATUS: Mapping[type[ChatAssistError], int] = {
    errors.InvalidInput: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    MethodNotAllowed: 405,
    errors.Limited: 429,
    errors.Unavailable: 500,
}

SENTENCES: Mapping[str, str] = {
    "invalid_request": "请求参数错误",
    "json_invalid": "请求体不是有效的 JSON",
    "form_invalid": "请求体不是有效的表单",
    "http_invalid": "请求格式错误",
    "body_too_large": "请求内容过大",
    "content_empty": "消息内容不能为空",
    "content_too_long": "消息内容过长，请缩短后再发送",
    "content_invalid": "内容包含无法识别的字符",
    "keyword_empty": "请输入要搜索的内容",
    "keyword_too_long": "搜索内容过长，请缩短后再试",
    "content_blocked": "消息内容不符合规范，请修改后再发送",
    "nickname_invalid": "昵称应为 1 至 32 个字",
    "avatar_invalid": "头像应为 512 个字符以内的 https 地址",
    "model_unknown": "所选模型不可用",
    "client_message_id_invalid": "消息编号格式错误",
    "idempotency_mismatch": "该消息编号已用于其他内容",
    "not_last_turn": "只能重新生成最后一条回复",
    "reply_running": "回复正在生成中，请稍候",
    "bad_seq": "续传位置无效",
    "bad_cursor": "列表位置无效，请重新加载",
    "title_empty": "会话标题不能为空",
    "title_too_long": "会话标题过长，请缩短后重试",
    "audio_missing": "请选择要识别的录音",
    "audio_empty": "录音内容为空，请重新录制",
    "audio_unsupported": "无法识别该音频格式，请使用 mp3、wav 或 m4a",
    "audio_corrupt": "录音文件已损坏或不完整，请重新录制",
    "audio_too_short": "录音时间太短，请说完后再结束录音",
    "audio_too_long": "录音时间过长，请分成几段录制",
    "audio_too_large": "录音文件过大，请缩短后重试",
    "audio_no_speech": "没有听到说话内容，请靠近麦克风再试一次",
    "wechat_code_invalid": "登录凭证无效或已过期，请重新登录",
    "context_too_long": "对话内容过长，请新建会话后重试",
    "token_missing": "请先登录",
    "token_invalid": "登录状态无效，请重新登录",
    "token_expired": "登录已过期，请重新登录",
    "login_ended": "您已退出登录，请重新登录",
    "user_blocked": "您的账号已被停用",
    "wechat_user_blocked": "您的微信账号暂时无法登录",
    "wrong_account": "登录凭证与当前账号不一致",
    "not_found": "请求的地址不存在",
    "session_not_found": "会话不存在",
    "message_not_found": "消息不存在",
    "undo_expired": "已超过可撤销的期限，无法恢复",
    "method_not_allowed": "请求方法不被支持",
    "too_many_sends": "发送消息过于频繁，请稍后再试",
    "too_many_logins": "登录过于频繁，请稍后再试",
    "too_many_reads": "操作过于频繁，请稍后再试",
    "too_many_transcriptions": "语音识别过于频繁，请稍后再试",
    "too_many_exports": "正在导出中，请完成后再试",
    "asr_busy": "语音识别繁忙，请稍后再试",
    "llm_busy": "AI 服务繁忙，请稍后再试",
    "wechat_rate_limited": "登录过于频繁，请稍后再试",
    "identity_unavailable": "微信登录服务暂时不可用，请稍后再试",
    "identity_misconfigured": "登录服务配置有误，请联系管理员",
    "database_unavailable": "服务暂时不可用，请稍后再试",
    "asr_not_configured": "语音识别尚未开通，请联系管理员",
    "asr_unavailable": "语音识别暂时不可用，请稍后再试",
    "asr_timeout": "语音识别超时，请稍后再试",
    "tts_not_configured": "语音朗读尚未开通，请联系管理员",
    "tts_unavailable": "语音朗读暂时不可用，请稍后再试",
    "tts_timeout": "语音朗读超时，请稍后再试",
    "shutting_down": "服务正在重启，请稍后再试",
    "internal": "服务器内部错误",
    "reply_interrupted": "回复被中断，请重新发送",
    "reply_not_stored": "回复未能保存，请稍后再试",
    "llm_overloaded": "AI 服务繁忙，请稍后再试",
    "llm_unavailable": "AI 服务暂时不可用，请稍后再试",
    "llm_misconfigured": "AI 服务配置有误，请联系管理员",
    "llm_timeout": "AI 回复超时，请稍后再试",
}


class Envelope(BaseModel, Generic[T]):
    """A success."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    code: int = 200
    message: str = "success"
    data: T


class TurnIds(Wire):
    """The turn whose reply failed."""

    session_id: str
    message_id: str
    user_message_id: str


class Refusal(Wire):
    """An error: `message` is for the user, `reason` for the program, `requestId` for whoever asks the operator."""

    code: int
    message: str
    data: None = None
    reason: Annotated[str, Field(json_schema_extra={"enum": sorted(SENTENCES)})]
    request_id: str
    turn: Annotated[TurnIds | SkipJsonSchema[None], Field(description="Only when a reply failed")] = None


def status_of(kind: type[ChatAssistError]) -> int:
    """Return the HTTP status, which is the envelope's code, of a class of errors."""
    return next((STATUS[base] for base in kind.__mro__ if base in STATUS), 500)


def refuse(
    error: ChatAssistError, request_id: str, headers: Mapping[str, str] | None = None, *, status: int | None = None
) -> Response:
    """Return the answer that an error gets; `status` stands in for that of the table."""
    failed = error.turn if isinstance(error, TurnFailed) else None
    kind = errors.named(failed.reply.reason if failed else error.slug)
    code = status or status_of(kind)
    sentence = SENTENCES[kind.slug]
    body = Refusal(
        code=code,
        message=f"{sentence}：{error.field}" if isinstance(error, InvalidRequest) and error.field else sentence,
        reason=kind.slug,
        request_id=request_id,
        turn=_ids(failed) if failed else None,
    )
    content = body.model_dump_json(by_alias=True, exclude=None if failed else {"turn"})
    told = {**(headers or {}), **_advice(code, error.retry_after)}
    return Response(content, code, told, media_type="application/json")


def answer(body: BaseModel) -> Response:
    """Return a 200 in bytes: what we built ourselves need not be validated and walked through once more."""
    return Response(body.model_dump_json(by_alias=True), media_type="application/json")


def request_id(request: Request) -> str:
    """Return the id that the frame around the app gave this request."""
    return str(request.state.request_id)


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Make every error that the framework or a service raises answer in the envelope. `routes`: all below `/v1`."""
    app.state.endpoints = [route for route in routes if isinstance(route, Route)]
    app.add_exception_handler(ChatAssistError, _chatassist_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)


async def _chatassist_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ChatAssistError)  # noqa: S101 - as registered
    if isinstance(error, errors.Unavailable):
        log.warning("refused", extra={"reason": error.slug, "detail": str(error)})
    return refuse(error, request_id(request))


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as registered
    first = error.errors()[0]
    if first["type"] == "json_invalid" or first["loc"] == ("body",):
        return refuse(JsonInvalid(), request_id(request))
    return refuse(InvalidRequest(str(first["loc"][1])), request_id(request))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as registered
    kinds = {404: PathNotFound, 405: MethodNotAllowed, 413: BodyTooLarge}
    known = kinds.get(error.status_code, JsonInvalid)  # 400 is "There was an error parsing the body"
    headers = {**(error.headers or {}), **({"Allow": _allowed(request)} if known is MethodNotAllowed else {})}
    return refuse(known(), request_id(request), headers)


def _allowed(request: Request) -> str:
    """Return the methods of a path: of several endpoints there, the framework names those of the first alone."""
    path, endpoints = request.url.path.removeprefix("/v1"), request.app.state.endpoints
    return ", ".join(sorted({each for one in endpoints if one.path_regex.match(path) for each in one.methods or ()}))


def _advice(code: int, retry_after: float | None) -> Mapping[str, str]:
    advice = {"WWW-Authenticate": "Bearer"} if code == 401 else {}
    if retry_after is not None and code >= 429:
        advice["Retry-After"] = str(math.ceil(retry_after))
    return advice


def _ids(turn: Turn) -> TurnIds:
    return TurnIds(session_id=turn.message.session_id, message_id=turn.reply.id, user_message_id=turn.message.id)
