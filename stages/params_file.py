"""Reads params.yaml, and collects its problems as messages: what was found, what was expected, the nearest name."""

import dataclasses
import difflib
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from stages.errors import UserError
from stages.paths import LOCK

MAX_WHOLE = 2**53  # the largest whole number up to which a float holds each exactly


class ParamsError(UserError):
    """params.yaml can't be used. The message names every key, what was found and what was expected."""


class ComposerWithoutAliases(Composer):
    """Refuses aliases: a few of them can expand to more than fits in memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.parser.check_event(AliasEvent):
            line = self.parser.peek_event().start_mark.line + 1
            raise YAMLError(f"line {line}: aliases (*name) are not used here; write the value out")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> dict:
    """Reads a mapping from YAML 1.2, as DVC does: 5e-05 is a number, 0512 is not octal.

    Raises ParamsError that names the file, and the line of a duplicate key or an alias.
    """
    reader = YAML(typ="safe", pure=True)
    reader.Composer = ComposerWithoutAliases
    try:
        raw = reader.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} not found: run from the project's root, as `python -m stages.NAME`") from None
    except DuplicateKeyError as error:
        raise ParamsError(f"{path}, line {error.problem_mark.line + 1}: {error.problem}; remove one") from None
    except (YAMLError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # ruamel.yaml lets errors of its own code through for dates, numbers, tags and keys that make no sense.
        raise ParamsError(f"{path} can't be read: {error}") from None
    if not isinstance(raw, dict):
        raise ParamsError(f"{path}: found {type(raw).__name__}; expected a mapping of sections")
    return raw


def read_lock() -> dict[str, Any]:
    """The stages of dvc.lock, with what they read and wrote when they ran; none without the file."""
    return read_yaml(LOCK).get("stages", {}) if LOCK.is_file() else {}


def build_table(raw: Any, name: str, cls: type, problems: list[str]) -> dict[str, Any]:
    """Builds each entry of a table. A mapping of mappings is one level of a name with dots, as DVC reads it.

    Args:
        raw: the table as read.
        name: its key in params.yaml.
        cls: the dataclass of its entries.
        problems: list that takes the messages.
    """
    if not isinstance(raw, dict) or not raw:
        problems.append(f"{name}: found {raw!r}; expected a table of entries")
        return {}
    table: dict[str, Any] = {}
    for key, value in raw.items():
        fields = {item.name for item in dataclasses.fields(cls)}
        if isinstance(value, dict) and value.keys().isdisjoint(fields) and any(map(is_mapping, value.values())):
            inner = build_table(value, f"{name}.{key}", cls, problems)
            built = {f"{key}.{rest}": entry for rest, entry in inner.items()}
        else:
            built = {str(key): build(cls, value, f"{name}.{key}", problems)}
        problems += [f"{name}: {twice!r} is the name of two entries; rename one" for twice in built.keys() & table]
        table |= built
    return table


def is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def build(cls: type, raw: Any, where: str, problems: list[str], partial: bool = False) -> Any:
    """Builds the dataclass `cls` from a mapping. Returns None if it can't, and adds the reason to `problems`.

    Args:
        cls: the dataclass, whose method `problems` checks fields against each other.
        raw: the mapping as read.
        where: the mapping's place in params.yaml, for messages.
        problems: list that takes the messages.
        partial: whether keys may be missing. They are None then.
    """
    if not isinstance(raw, dict):
        problems.append(f"{where}: found {raw!r}; expected a section of keys")
        return None
    before = len(problems)
    hints = typing.get_type_hints(cls)
    for key in raw.keys() - hints.keys():
        problems.append(f"{where}.{key}: unknown key{nearest(str(key), hints)}")
    values = {}
    for item in dataclasses.fields(cls):
        if item.name in raw:
            values[item.name] = check(raw[item.name], hints[item.name], item.metadata, f"{where}.{item.name}", problems)
        elif partial:
            values[item.name] = None
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            problems.append(f"{where}.{item.name}: missing")
    if len(problems) > before:
        return None
    built = cls(**values)
    problems += [f"{where}: {problem}" for problem in getattr(built, "problems", tuple)()]
    return built


def check(value: Any, hint: Any, limits: typing.Mapping, where: str, problems: list[str]) -> Any:
    """Returns `value` as the type that `hint` names. Returns None if it has another, and adds that to `problems`.

    Args:
        value: as read.
        hint: type, Literal, or union of them.
        limits: `low` and `high`, both optional.
        where: the value's place in params.yaml, for messages.
        problems: list that takes the messages.
    """
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and types.NoneType in options:
        return None
    for option in options:
        if typing.get_origin(option) is Literal:
            if value in typing.get_args(option):
                return value
            expected = (
                "one of " + ", ".join(map(str, typing.get_args(option))) + nearest(str(value), typing.get_args(option))
            )
        elif option is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_WHOLE:
            return in_range(float(value), limits, where, problems)
        elif option is float and isinstance(value, float) and not math.isfinite(value):
            expected = "a finite number"
        elif option is str and isinstance(value, str) and not is_unicode(value):
            expected = "a text without lone surrogates"
        elif isinstance(value, option) and (option is bool or not isinstance(value, bool)):
            return in_range(value, limits, where, problems)
        else:
            expected = " or ".join(o.__name__ if isinstance(o, type) else str(o) for o in options)
    problems.append(f"{where}: found {value!r}; expected {expected}")
    return None


def is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def in_range(value: Any, limits: typing.Mapping, where: str, problems: list[str]) -> Any:
    """The value, with a problem noted where it lies outside its limits.

    Args:
        value: a number.
        limits: "low" and "high", both included; one that is missing bounds nothing.
        where: the key, for the message.
        problems: messages; one is added.
    """
    low, high = limits.get("low"), limits.get("high")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        problems.append(f"{where}: found {value!r}; expected at least {low}" + (f" and at most {high}" if high else ""))
    return value


def nearest(name: str, known: typing.Iterable) -> str:
    match = difflib.get_close_matches(str(name), list(map(str, known)), n=1)
    return f" (did you mean {match[0]}?)" if match else ""
