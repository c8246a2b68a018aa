"""Words in Chinese and English, numbers as people read them, and text that can't change the page around it."""

import re
import unicodedata
from html import escape
from string import Formatter
from typing import NamedTuple

UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # categories of Unicode: control, format, surrogates, separators of lines
VISIBLE = "\n\t"  # control characters that do no harm
BORDER = re.compile(r"[\u4e00-\u9fff][A-Za-z0-9−+]|[A-Za-z0-9%][\u4e00-\u9fff]")  # where Chinese meets Latin


class Words(NamedTuple):
    """The same in two languages, as plain text."""

    zh: str
    en: str


def say(zh: str, en: str, **values: "str | Words") -> Words:
    """Fills values into a sentence, each in its language. In Chinese, a space parts a value from letters around it.

    >>> say("{a}好", "good {a}", a=Words("模型", "model")).en
    'good model'
    >>> say("用{a}好", "", a="F1").zh
    '用 F1 好'
    """
    in_zh = {name: value.zh if isinstance(value, Words) else value for name, value in values.items()}
    in_en = {name: value.en if isinstance(value, Words) else value for name, value in values.items()}
    filled = ""
    for before, name, _, _ in Formatter().parse(zh):
        filled = beside(filled, before)
        filled = beside(filled, in_zh[name]) if name else filled
    return Words(filled, en.format(**in_en))


def beside(left: str, right: str) -> str:
    """Two pieces of Chinese text as one."""
    return f"{left} {right}" if BORDER.fullmatch(left[-1:] + right[:1]) else left + right


def both(words: "str | Words") -> str:
    """HTML that shows the language of the page."""
    if isinstance(words, str):
        return escape(plain(words))
    zh, en = (escape(plain(text)) for text in words)
    return zh if zh == en else f'<span class="zh" lang="zh-CN">{zh}</span><span class="en" lang="en">{en}</span>'


def plain(text: str) -> str:
    """A text of a data set with its invisible commands spelled out: they could turn the words around it.

    >>> plain(chr(0x202e) + "abc")
    '⟨U+202E⟩abc'
    """
    return "".join(
        f"⟨U+{ord(each):04X}⟩" if unicodedata.category(each) in UNSEEN and each not in VISIBLE else each
        for each in text
    )


def short(text: str, most: int) -> str:
    """At most so many characters of a text.

    >>> short("abcdef", 4)
    'abc…'
    """
    return text if len(text) <= most else text[: most - 1] + "…"


def percent(share: float, digits: int = 1) -> str:
    """A share in percent, which no line break parts from its sign.

    >>> percent(0.5)
    '50.0\\xa0%'
    """
    return f"{100 * share:.{digits}f}\u00a0%"


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign, and a real minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def count(number: float) -> str:
    return f"{number:,.0f}"


def span(low: float, high: float, unit: str = "%") -> Words:
    """An interval in words.

    Args:
        low, high: its ends.
        unit: "%" for shares, "" for counts, "." for differences with three decimals.
    """
    ends = [percent(end, 0) if unit == "%" else signed(end) if unit == "." else count(end) for end in (low, high)]
    return Words(f"95\u00a0% 区间 {ends[0]} 至 {ends[1]}", f"95\u00a0% interval {ends[0]} to {ends[1]}")


def bare_interval(block: dict, name: str, unit: str = "%") -> Words:
    """The interval of a metric; empty if it has none.

    Args:
        block: metrics of a system.
        name: of the metric.
        unit: as of `span`.
    """
    if block.get(f"{name}_low") is None:
        return Words("", "")
    return span(block[f"{name}_low"], block[f"{name}_high"], unit)


def interval_of(block: dict, name: str, unit: str = "%") -> Words:
    """The same in brackets, to stand in a sentence.

    Args:
        block: metrics of a system.
        name: of the metric.
        unit: as of `span`.
    """
    words = bare_interval(block, name, unit)
    return Words(f"（{words.zh}）", f" ({words.en})") if words.en else words


# Systems, from the cheapest to the dearest: labels.
SYSTEMS = {
    "always_fraud": Words("全部判为诈骗", "everything is fraud"),
    "zero_shot": Words("未训练的基础模型", "untrained base model"),
    "baseline": Words("TF-IDF 基线", "TF-IDF baseline"),
    "probe": Words("基础模型探针", "probe of the base"),
    "combined_cheap": Words("探针 + TF-IDF", "probe + TF-IDF"),
    "model": Words("微调模型", "fine-tuned model"),
    "combined": Words("微调模型 + TF-IDF", "fine-tuned + TF-IDF"),
}


def label(system: str) -> Words:
    return SYSTEMS.get(system, Words(system, system))


# Features of stages/prepare/shortcuts.py: how their names start.
FEATURES = {
    "first token ": "首词 ",
    "speaker tags": "说话人标记",
    "speaker ": "说话人 ",
    "at most ": "字数不超过 ",
    "more than one line": "不止一行",
    "digits": "数字",
    "Latin letters": "拉丁字母",
    "URL": "网址",
    "placeholder": "占位符",
    "punctuation ": "标点 ",
    "category word ": "类别词 ",
}
WHEN = {"absent": Words("缺失", "absent"), "present": Words("出现", "present")}


def feature(name: str) -> Words:
    """The name of a shortcut.

    >>> feature("at most 53 characters").zh
    '字数不超过 53'
    """
    for start, chinese in FEATURES.items():
        if name.startswith(start):
            rest = name.removeprefix(start)
            return Words(chinese + (rest.removesuffix(" characters") if start == "at most " else rest), name)
    return Words(name, name)
