"""The values of a row: its text, its label, and names such as its group.

Each function raises ValueError with the reason why a value can't be used.
"""

import datetime
import re
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from stages.data.layout import fold_word

INVISIBLE = {"Zs", "Zl", "Zp", "Cc", "Cf"}  # Unicode's categories of characters
LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
# What pandas and Excel write for a value that is missing or could not be computed.
MISSING = {"nan", "NaN", "NaT", "None", "<NA>", "null", "NULL", "N/A", "undefined"}
MISSING |= {"#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!"}
SHORTENED = re.compile(r"\d([.,]\d+)?[Ee]\+\d+")  # Excel's 1.38E+10: different long numbers look the same
# Seconds or milliseconds. Other numbers of digits may be dates, as 20240501 or 202405011300, and so may some of ten.
SINCE_1970 = re.compile(r"(\d{9,10}|\d{13})(\.\d+)?", re.ASCII)
DATE_AND_HOUR = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])([01]\d|2[0-3])")  # 2024050113
EAST_ASIAN = re.compile(r"^(\d{4})[/.年-](\d{1,2})[/.月-](\d{1,2})日?(?!\d)")
EXACT = 2**53  # whole numbers below it are exact in a float


def input_text(row: dict[str, Any], key: str = "input", of_table: bool = False) -> str:
    """The text of a row. Raises ValueError if it is missing, blank or can't be encoded.

    of_table: whether it is the cell of a table, where a word of MISSING is a missing text, too.
    """
    text = required(row, key)
    if not isinstance(text, str) or not is_visible(text):
        raise ValueError(f"{key} is {shorten(text)}; expected a text that is not blank")
    if of_table and text.strip() in MISSING:
        raise ValueError(f"{key} is {text.strip()!r}, which programs write for a missing value; expected a text")
    require_encodable(text)
    return text


def is_visible(text: str) -> bool:
    """Whether a text holds more than blanks, control characters and zero-width marks such as U+200B."""
    return any(unicodedata.category(character) not in INVISIBLE for character in text)


def required(row: dict[str, Any], key: str) -> Any:
    """The value of a key. Raises ValueError if the key is missing."""
    if key not in row:
        raise ValueError(f"the key {key} is missing; found {shorten(list(row))}")
    return row[key]


def require_encodable(text: str) -> None:
    """Raises ValueError if a text holds a lone surrogate, which can't be written as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"a lone surrogate, {text[error.start]!a}, at character {error.start}") from None


def shorten(value: Any, most: int = 60) -> str:
    """A value as messages show it, in at most `most` characters."""
    text = repr(value)
    return text if len(text) <= most else text[: most - 3] + "…"


def optional_text(row: dict[str, Any], key: str) -> str:
    """A text or whole number as a text without blanks around it, 3.0 as 3. Empty if the value is missing."""
    value = row.get(key)
    if value is None:
        return ""
    whole = isinstance(value, float) and value.is_integer()  # as pandas writes whole numbers in a column with gaps
    if whole and abs(value) >= EXACT:
        raise ValueError(f"{key} is {value}, too large to be exact in this form; write it as a text")
    if isinstance(value, bool) or not (whole or isinstance(value, str | int)):
        raise ValueError(f"{key} is {shorten(value)}; expected a text or a whole number")
    text = str(int(value) if whole else value)
    require_encodable(text)
    return text.strip() if is_visible(text) else ""


def identifier(row: dict[str, Any], key: str) -> str:
    """The name of a case or group. Raises ValueError for values that an export writes instead of different names."""
    name = optional_text(row, key)
    if name in MISSING:
        raise ValueError(f"{key} is {name!r}, which programs write for a missing value; expected a name")
    if SHORTENED.fullmatch(name):
        raise ValueError(f"{key} is {name!r}, a number that a spreadsheet shortened; format the column as text")
    return name


def parse_label(value: Any, key: str = "label", words: Mapping[str, bool] = MappingProxyType({})) -> bool:
    """A label from true or false, 1 or 0, 1.0 or 0.0, written as such or as a text in any case.

    words: folded words, if others than these are expected.
    """
    if words:
        folded = fold_word(value) if isinstance(value, str | int | float) else ""
        if folded not in words:
            raise ValueError(f"{key} is {shorten(value)}; expected {shorten(list(words))}, as in `labels`")
        return words[folded]
    word = str(value).strip().lower() if isinstance(value, str | int | float) else None
    if word not in LABELS:
        raise ValueError(f"{key} is {shorten(value)}; expected true or false, 1 or 0")
    return LABELS[word]


def parse_time(value: Any, key: str) -> datetime.datetime:
    """A time from ISO 8601, 2024/5/1 13:00, 2024年5月1日, or seconds or milliseconds since 1970.

    A time without a zone counts as UTC. Raises ValueError for any other value, such as 1/5/2024, whose order is unsure.
    """
    text = str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    number = SINCE_1970.fullmatch(text)
    if number and not DATE_AND_HOUR.fullmatch(text):
        seconds = float(text) / (1000 if len(number[1]) > 10 else 1)
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    written = EAST_ASIAN.sub(lambda m: f"{m[1]}-{int(m[2]):02}-{int(m[3]):02}", text)
    written = re.sub(r"(?<=\d) +(\d:)", r" 0\1", written)
    try:
        time = datetime.datetime.fromisoformat(written)
        return time.astimezone(datetime.UTC) if time.tzinfo else time.replace(tzinfo=datetime.UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{key} is {shorten(value)}; expected a time such as 2024-05-01, 2024-05-01 13:00 or seconds since 1970"
        ) from None
