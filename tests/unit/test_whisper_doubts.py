"""What Whisper is not believed: recited lines with bad figures, loops; and what it is, though it sounds like them."""

from typing import Any

import pytest

from chatassist.adapters.asr.whisper_doubts import Line, believed

RECITED = [
    "请不吝点赞 订阅 转发 打赏支持明镜与点点栏目",
    "明镜需要您的支持 欢迎订阅明镜",
    "字幕由 Amara.org 社区提供",
    "优优独播剧场——YoYo Television Series Exclusive",
    "謝謝觀看",
    "ご視聴ありがとうございました",
    "Thanks for watching!",
    "以下是普通话的句子。",
]


def line(text: str, **figures: Any) -> Line:
    usual = {"seconds": 2.0, "no_speech_prob": 0.05, "avg_logprob": -0.25, "compression_ratio": 1.2}
    return Line(text=text, **{**usual, **figures})


@pytest.mark.parametrize("text", RECITED)
@pytest.mark.parametrize("figures", [{"no_speech_prob": 0.5}, {"avg_logprob": -0.8}, {"seconds": 0.3}])
def test_recited_lines_go_if_their_figures_are_bad(text: str, figures: dict[str, float]) -> None:
    assert believed(line(text, **figures)) == ""


@pytest.mark.parametrize("text", RECITED)
def test_what_is_heard_well_stays_whatever_the_words(text: str) -> None:
    assert believed(line(text)) == text


@pytest.mark.parametrize("figures", [{"no_speech_prob": 0.5}, {"avg_logprob": -0.8}, {"seconds": 0.3}])
def test_other_words_stay_though_their_figures_are_bad(figures: dict[str, float]) -> None:
    assert believed(line(" 今天天气怎么样？", **figures)) == " 今天天气怎么样？"


@pytest.mark.parametrize("figures", [{"no_speech_prob": 0.7}, {"compression_ratio": 3.0}])
def test_what_is_a_mere_guess_goes(figures: dict[str, float]) -> None:
    assert believed(line("任何话", avg_logprob=-1.2, **figures)) == ""


@pytest.mark.parametrize(
    ("text", "once"),
    [
        ("我们去公园" * 9, "我们去公园"),
        ("好的。" + "谢谢大家。" * 20 + "再见", "好的。谢谢大家。再见"),
        (" I am" * 12 + " here", " I am here"),
    ],
)
def test_a_loop_is_said_once(text: str, once: str) -> None:
    assert believed(line(text, compression_ratio=4.0)) == once


@pytest.mark.parametrize("text", ["哈哈哈哈哈哈", "三三三三", "138 8888 8888"])
def test_a_short_repetition_is_what_was_said(text: str) -> None:
    assert believed(line(text)) == text
