"""An export as Markdown, to be read. Whatever somebody wrote stands between fences or escaped: it is text, and can
neither look like a part of the document nor show pictures or addresses.
"""

import re
from collections.abc import Sequence

from chatassist.domain.model import Login, Session
from chatassist.domain.ports.exports import Day, Entry
from chatassist.domain.services.exports import Owner, Part
from chatassist.domain.turns import Message, Rating, Reply, Status
from chatassist.entrypoints.http.schemas import wire_time

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_TICKS = re.compile(r"`+")
_STATUS = {
    Status.RUNNING: "生成中",
    Status.COMPLETE: "已完成",
    Status.STOPPED: "已停止",
    Status.FAILED: "失败",
}
_RATINGS = {Rating.LIKE: "赞", Rating.DISLIKE: "踩"}
_SWITCH = {True: "开", False: "关"}


class MarkdownExport:
    """Writes one document."""

    media_type = "text/markdown; charset=utf-8"
    suffix = "md"

    def __init__(self) -> None:
        self._section: type[Part] | None = None

    def write(self, part: Part) -> str:
        """Return what a part adds."""
        match part:
            case Owner():
                return _owner(part)
            case Day():
                return self._heading(Day, "用量", "日期", "消息数", "输入 token", "输出 token", "语音秒数") + _day(part)
            case Login():
                times = wire_time(part.created_at), wire_time(part.expires_at)
                return self._heading(Login, "登录记录", "登录时间", "有效期至") + _row(*times)
            case Session():
                return _session(part)
            case Entry():
                return _entry(entry=part)

    def end(self) -> str:
        """Return the last line: a document without it is broken off."""
        return "\n---\n\n导出完成。\n"

    def _heading(self, kind: type[Part], title: str, *columns: str) -> str:
        """Return the head of a table, before its first row."""
        if self._section is kind:
            return ""
        self._section = kind
        return f"\n## {title}\n\n{_row(*columns)}{_row(*('---' for _ in columns))}"


def _owner(owner: Owner) -> str:
    user, chosen = owner.user, owner.user.preferences
    lines = (
        f"导出时间：{wire_time(owner.at)}",
        f"用户编号：{user.id}",
        f"openid：{_inline(user.openid)}",
        f"昵称：{_inline(user.nickname)}",
        f"头像：{_inline(user.avatar)}",
        f"注册时间：{wire_time(user.created_at)}",
        f"深色模式：{_SWITCH[chosen.is_dark_mode]}",
        f"自动朗读：{_SWITCH[chosen.auto_read]}",
        f"保存历史：{_SWITCH[chosen.save_history]}",
    )
    notice = "标有“AI 生成”的内容由人工智能生成，仅供参考。"
    return f"# 个人数据导出\n\n{notice}\n\n" + _listed(lines)


def _day(day: Day) -> str:
    used = day.used
    return _row(day.day, used.messages, used.input_tokens, used.output_tokens, used.audio_ms / 1000)


def _session(session: Session) -> str:
    lines = (
        f"会话编号：{session.id}",
        f"创建时间：{wire_time(session.created_at)}",
        f"最近活动：{wire_time(session.updated_at)}",
        *(["已置顶"] if session.pinned else []),
        *([f"所选模型：{_inline(session.model)}"] if session.model else []),
    )
    return f"\n## 会话：{_inline(session.title)}\n\n" + _listed(lines)


def _entry(entry: Entry) -> str:
    match entry.said:
        case Message() as said:
            head = f"\n### {entry.position} · 用户 · {wire_time(said.created_at)}\n\n"
            return head + _fenced(said.content)
        case Reply() as reply:
            return _reply(entry, reply)


def _reply(entry: Entry, reply: Reply) -> str:
    facts = [f"第 {reply.version} 版{'（当前显示）' if entry.shown else ''}", _STATUS[reply.status]]
    facts += [f"原因：{_inline(reply.reason)}"] if reply.reason else []
    facts += [f"模型：{_inline(reply.model)}"] if reply.model else []
    if usage := reply.usage:
        guess = "（估算）" if usage.estimated else ""
        facts.append(f"输入 {usage.input_tokens} token，输出 {usage.output_tokens} token{guess}")
    if feedback := reply.feedback:
        comment = f"，{_inline(feedback.comment)}" if feedback.comment else ""
        facts.append(f"评价：{_RATINGS[feedback.rating]}{comment}")
    head = f"\n### {entry.position} · AI 生成 · {wire_time(reply.ended_at or reply.created_at)}\n\n"
    thinking = f"\n思考过程（AI 生成）：\n\n{_fenced(reply.thinking)}" if reply.thinking else ""
    content = f"\n回复（AI 生成）：\n\n{_fenced(reply.content)}" if reply.content else ""
    return head + _listed(facts) + thinking + content


def _listed(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |\n"


def _inline(text: str) -> str:
    """Return a text on one line that means nothing but itself: Markdown takes every escaped punctuation as it is."""
    return _PUNCTUATION.sub(r"\\\1", " ".join(text.split()))


def _fenced(text: str) -> str:
    """Return a text between fences that are longer than any in it."""
    longest = max(map(len, _TICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}\n"
