"""Surface features that predict the label on their own. If one does, a high score says nothing about fraud."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import f1_score, mutual_info_score

from stages.data.speakers import SPEAKER
from stages.text.example import Example

SHOWN = 10
FREQUENT = 0.01  # the smallest share of train at which a value counts as a feature
VALUES = 40  # the largest number of such values in a family
FIRST_TOKEN = re.compile(r"[^\W\d_]+")
PLACEHOLDER = re.compile(r"[xX*＊]{2,}|[<\[【{][^>\]】}\n]{1,12}[>\]】}]")
URL = re.compile(r"https?:|www\.|\.(com|cn|net|top|vip)\b", re.IGNORECASE)
PUNCTUATION = "，。！？、；：“”‘’（）《》【】…—~,.!?;:'\"()[]<>*#@&%+-/￥$"


@dataclass(frozen=True)
class Shortcut:
    """A rule of one feature, with its direction learned on train.

    fraud_if: "present" or "absent". f1: on valid. mutual_information: of feature and label on valid, in nats. share:
    of the rows of valid that have the feature.
    """

    feature: str
    fraud_if: str
    f1: float
    mutual_information: float
    share: float


def find_shortcuts(train: list[Example], valid: list[Example]) -> list[Shortcut]:
    """The single features with the highest F1 on valid, the best first."""
    y_train, y_valid = (np.array([example.label for example in rows]) for rows in (train, valid))
    found: dict[bytes, Shortcut] = {}  # by the rows of valid that have the feature, so equal features count once
    for name, has in features(train):
        on_train, on_valid = (np.array([has(example.input) for example in rows]) for rows in (train, valid))
        if on_train.all() or not on_train.any():
            continue
        present = f1_score(y_train, on_train, zero_division=0) >= f1_score(y_train, ~on_train, zero_division=0)
        f1 = f1_score(y_valid, on_valid if present else ~on_valid, zero_division=0)
        information = mutual_info_score(y_valid, on_valid)
        direction = "present" if present else "absent"
        shortcut = Shortcut(name, direction, float(f1), max(0.0, float(information)), float(on_valid.mean()))
        found.setdefault(on_valid.tobytes(), shortcut)
    return sorted(found.values(), key=lambda shortcut: -shortcut.f1)[:SHOWN]


def features(train: list[Example]) -> Iterator[tuple[str, Callable[..., bool]]]:
    """Yields name and test of each feature. The values that count are those frequent in train."""
    for value in frequent(first_token(example.input) for example in train):
        yield f"first token {value}", lambda text, value=value: first_token(text) == value
    yield "speaker tags", lambda text: SPEAKER.search(text) is not None
    for value in frequent(word for example in train for word in speaker_words(example.input)):
        yield f"speaker {value}", lambda text, value=value: value in speaker_words(text)
    for value in np.unique(np.quantile([len(example.input) for example in train], np.arange(1, 10) / 10).astype(int)):
        yield f"at most {value} characters", lambda text, value=value: len(text) <= value
    yield "more than one line", lambda text: "\n" in text
    yield "digits", lambda text: any(character.isdigit() for character in text)
    yield "Latin letters", lambda text: re.search("[A-Za-z]", text) is not None
    yield "URL", lambda text: URL.search(text) is not None
    yield "placeholder", lambda text: PLACEHOLDER.search(text) is not None
    for value in frequent(mark for example in train for mark in sorted(set(example.input) & set(PUNCTUATION))):
        yield f"punctuation {value}", lambda text, value=value: value in text
    for value in category_words(train):
        yield f"category word {value}", lambda text, value=value: value in text


def frequent(values: Iterator[str]) -> list[str]:
    """The commonest values, each at least a FREQUENT share of all values."""
    counts = Counter(values)
    least = FREQUENT * counts.total()
    return [value for value, count in counts.most_common(VALUES) if value and count >= least]


def first_token(text: str) -> str:
    """The first run of letters or Chinese characters, at most eight: 发言人 in 发言人3."""
    match = FIRST_TOKEN.search(text)
    return match.group()[:8] if match else ""


def speaker_words(text: str) -> list[str]:
    """The names in front of lines, without numbers, and the first two and three characters of each; the longest first.

    The first characters often hold the role: 受害者王伟 begins with 受害者.
    """
    names = {re.sub(r"[\s:：\d]+", "", name) for name in SPEAKER.findall(text)}
    words = names | {name[:size] for name in names for size in (2, 3)}
    return sorted(words - {""}, key=lambda word: (-len(word), word))


def category_words(train: list[Example]) -> list[str]:
    """Two characters of the name of a category, such as 贷款 of 网络贷款诈骗, that appear in texts of train."""
    pairs = {e.category[i : i + 2] for e in train for i in range(len(e.category) - 1)}
    counts = {pair: sum(pair in example.input for example in train) for pair in sorted(filter(str.isalpha, pairs))}
    return sorted((p for p, n in counts.items() if n >= FREQUENT * len(train)), key=lambda p: -counts[p])[:VALUES]
