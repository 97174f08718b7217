"""What a model is asked for a title, and what of its answer is one."""

import time

import pytest

from chatassist.domain.model import Role
from chatassist.domain.replies.title_words import title_of, title_prompt

ANSWERS = {
    "春天的诗": "春天的诗",
    "  Spring poems \n": "Spring poems",
    "Node.js 入门": "Node.js 入门",
    # labels, markdown and quotation marks, in whatever order
    "标题：春天": "春天",
    "对话标题: 春天": "春天",
    "Title: Foo: bar": "Foo: bar",
    "**标题：** 春天": "春天",
    "**标题**：春天": "春天",
    "# 标题：“春天”": "春天",
    "“标题：春天”": "春天",
    "标题：\n春天": "春天",
    '**"Spring"**': "Spring",
    "《春天》": "春天",
    "「春天」": "春天",
    "`春天`": "春天",
    "```\n春天\n```": "春天",
    "```text\n春天\n```": "春天",
    "1. 春天\n2. 夏天": "春天",
    "1、春天": "春天",
    "- 春天": "春天",
    "春天。": "春天",
    # what only leads to a title
    "好的！\n春天": "春天",
    "Sure!\n\nSpring": "Spring",
    "Here is a title:\nSpring": "Spring",
    # and what only looks like any of it
    "《红楼梦》人物": "《红楼梦》人物",
    '"a" and "b"': '"a" and "b"',
    "学习 C#": "学习 C#",
    "#include 的用法": "#include 的用法",
    "解释 __init__": "解释 __init__",
    "主题公园攻略": "主题公园攻略",
    "10.5 寸屏幕": "10.5 寸屏幕",
    "好的习惯": "好的习惯",
    "🎉": "🎉",
    # thinking
    "<think>\nlet me see\n</think>\n\n春天": "春天",
    "<think>it never ends": "",
    "the opening is in the template</think>春天": "春天",
    "<think>a <think> b</think> c</think>春天": "春天",
    '<Thinking mode="deep">hm</Thinking>春天': "春天",
    "春天<think>was that good?": "春天",
    "one <think>two</think>three <thought>four</thought> five": "one three five",
    "<think></think>": "",
    # nonsense
    "": "",
    " \n\t\n": "",
    "...": "",
    "```": "",
    "标题：": "",
    "\u202e春\x00天\ud83d\u200b": "春天",
    "春天\u2028夏天": "春天",
    "春\t天": "春 天",
    "x" * 100: "x" * 60,
    "x" * 59 + " y": "x" * 59,
}


@pytest.mark.parametrize(("answer", "title"), ANSWERS.items(), ids=ascii)
def test_of_an_answer_the_title_is_left(answer: str, title: str) -> None:
    assert title_of(answer) == title


@pytest.mark.parametrize(
    "hostile", ["*", "#", "> ", '"', "[*_", "<think>", "</think>", "<think", "1. ", "标题：", "\n"]
)
def test_no_answer_takes_long_to_read(hostile: str) -> None:
    begun = time.process_time()
    title_of(hostile * 64_000)
    assert time.process_time() - begun < 0.5


def test_the_prompt_holds_the_beginning_of_both_sides_and_no_more() -> None:
    prompt = title_prompt("问" * 300, "答" * 300)
    system, user = prompt.utterances
    assert (system.role, user.role, prompt.model) == (Role.SYSTEM, Role.USER, None)
    assert (user.content.count("问"), user.content.count("答")) == (200, 200)
