"""What Whisper says without having heard it: it was taught with subtitles, and on a hum it recites their last lines.

Words alone condemn nothing: somebody may say "thanks for watching". A line goes only if its figures are bad as well.
"""

import re
from dataclasses import dataclass

_RECITED = (
    "请不吝点赞",
    "請不吝點贊",
    "明镜与点点",
    "明鏡與點點",
    "明镜需要您的支持",
    "明鏡需要您的支持",
    "欢迎订阅明镜",
    "歡迎訂閱明鏡",
    "字幕由amara",
    "amara.org",
    "优优独播剧场",
    "優優獨播劇場",
    "字幕志愿者",
    "字幕志願者",
    "中文字幕",
    "谢谢观看",
    "謝謝觀看",
    "感谢观看",
    "感謝觀看",
    "感谢收看",
    "感謝收看",
    "ご視聴ありがとうございました",
    "시청해주셔서감사합니다",
    "thanksforwatching",
    "thankyouforwatching",
    "subtitlesby",
    "以下是普通话的句子",  # our own prompt, said back
)
"""The lines that are reported most, without spaces, in lower case."""

_PACKED = 2.4  # how far a text can be compressed; beyond it, it repeats itself
_LOOP = re.compile(r"(.{1,30}?)\1{3,}", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A segment as Whisper gives it, with its figures: how likely silence was, and each of its words."""

    text: str
    seconds: float
    no_speech_prob: float
    avg_logprob: float
    compression_ratio: float


def believed(line: Line) -> str:
    """Return what of a line was said, by all likelihood: all of it, once what went round and round, or nothing."""
    unsure = line.avg_logprob < -1.0
    if unsure and (line.no_speech_prob > 0.6 or line.compression_ratio > _PACKED):
        return ""
    doubtful = line.no_speech_prob > 0.3 or line.avg_logprob < -0.6 or line.seconds < 0.5
    if doubtful and any(recited in _bare(line.text) for recited in _RECITED):
        return ""
    return _LOOP.sub(r"\1", line.text) if line.compression_ratio > _PACKED else line.text


def _bare(text: str) -> str:
    return "".join(text.split()).lower()
