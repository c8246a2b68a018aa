"""Guesses how a file is read: its encoding, its columns, and which words mean fraud."""

import csv
import gzip
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from stages.data.files import decoded_lines, form_of, read_rows
from stages.data.layout import Layout, fold_word
from stages.data.lines import GZIP_MAGIC, DataError
from stages.data.table import DELIMITERS, header_cells, open_quote, read_cells, table_lines
from stages.data.values import LABELS, parse_time
from stages.data.workbook import read_parquet, sheets
from stages.errors import UserError

NAMES = {
    "text": "input text content message messages msg sms body v2 sentence email "
    "文本 内容 短信 短信内容 消息 正文 文字 话术 原文",
    "label": "label is_fraud fraud is_spam spam target class y v1 category type "
    "标签 是否诈骗 是否欺诈 诈骗 类别 标注 分类",
    "group": "group case case_id group_id dialog_id dialogue_id session_id thread "
    "案件 案件编号 案号 会话 会话编号 编组",
    "category": "category subcategory kind scene type 类型 类别 场景 诈骗类型",
    "time": "time date timestamp datetime created_at sent_at 时间 日期 发送时间 创建时间",
}
FRAUD = (
    "1 true yes y spam fraud scam phishing smishing fraudulent positive "
    "是 诈骗 欺诈 垃圾 垃圾短信 涉诈 涉嫌诈骗 有风险 真"
)
LEGITIMATE = (
    "0 false no n ham legit legitimate normal benign safe negative -1 否 正常 正常短信 非诈骗 非欺诈 无风险 不涉诈 假"
)
WORDS = {
    word: side == "fraud" for side, words in (("fraud", FRAUD), ("legitimate", LEGITIMATE)) for word in words.split()
}
BYTES = 1 << 20  # of the file, to detect its encoding
SAMPLE = 2000  # rows, to guess columns
MOST_LABELS = 10
UNNAMED = 1000
RARE = 0.01  # of all rows
CHINESE = re.compile("[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]")


def detect_encoding(path: Path) -> str:
    """The encoding of a file, empty for UTF-8 and for files that are no text."""
    start = path.read_bytes()[:BYTES] if path.stat().st_size <= 64 * BYTES else path.open("rb").read(BYTES)
    if start.startswith(GZIP_MAGIC):
        with gzip.open(path) as packed:
            start = packed.read(BYTES)
    if start.startswith((b"PK\x03\x04", b"PAR1")):
        return ""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    whole = start.rpartition(b"\n")[0] or start  # a character may be cut at the end
    try:
        whole.decode("utf-8")
        return ""
    except UnicodeDecodeError:
        pass
    lines = [line for line in whole.split(b"\n") if not line.isascii()]
    bad_utf_8 = sum(not decodes(line, "utf-8") for line in lines)
    if bad_utf_8 * 10 < len(lines):  # a UTF-8 file with some broken rows
        return ""
    text = whole.decode("gb18030", errors="replace")
    if len(CHINESE.findall(text)) > 0.9 * sum(not c.isascii() for c in text):
        return "gb18030"
    return "cp1252" if decodes(whole, "cp1252") else "latin-1"


def decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def guess(path: Path, encoding: str) -> tuple[Layout, list[str]]:
    """How the file seems to be laid out, without labels, and the names of its columns."""
    for quotes in (True, False):
        try:
            header, rows = first_rows(path, Layout(encoding=encoding, quotes=quotes))
            columns = guess_columns(path, header, rows)
            layout = Layout(columns, {}, encoding, quotes)
            for _ in read_rows(path, layout):  # to its end, where an open quote shows
                pass
            return layout, header
        except DataError as error:
            if not quotes or "quotes: false" not in str(error):
                raise
            print(f"check: {error}")
    raise AssertionError


def first_rows(path: Path, layout: Layout) -> tuple[list[str], list[dict[str, Any]]]:
    """The names of the columns, and the first rows by them."""
    match form_of(path):
        case "excel":
            filled = ([row for row in sheet if any(str(cell).strip() for cell in row)] for sheet in sheets(path))
            cells = [[str(cell).strip() for cell in row] for row in next(filter(None, filled), [])[: SAMPLE + 1]]
            return by_name(cells)
        case "table":
            lines = table_lines(list(decoded_lines(path, layout)))
            delimiter = max(DELIMITERS, key=lambda each: len(header_cells(lines, each, layout)))
            reader = read_cells(lines, delimiter, layout)
            cells, end = [], 0
            try:
                for row in islice(reader, SAMPLE + 1):
                    cells.append(row)
                    end = reader.line_num
            except csv.Error as error:
                raise open_quote(path, end + 1, error) from None
            return by_name([row for row in cells if any(map(str.strip, row))])
        case "parquet":
            found = [row.values for row in islice(read_parquet(path, None), SAMPLE)]
        case _:
            found = [row.values for row in islice(read_rows(path, layout), SAMPLE) if not row.problem]
    return list(dict.fromkeys(key for row in found for key in row)), found


def by_name(cells: list[list[str]]) -> tuple[list[str], list[dict[str, Any]]]:
    """The names in the first row and the other rows by them. A first row with a label has no names, but numbers."""
    header = cells[0] if cells else []
    if any(fold_word(cell) in WORDS for cell in header):
        header, cells = [str(number) for number in range(1, len(header) + 1)], [[], *cells]
    return header, [dict(zip(header, row, strict=False)) for row in cells[1:]]


def guess_columns(path: Path, header: Sequence[str], rows: list[dict[str, Any]]) -> dict[str, str | int]:
    """The column of each role. Raises UserError if none can be the label or the text."""
    values = {name: [v for row in rows if (v := row.get(name)) not in (None, "")] for name in header if name}
    values = {name: found for name, found in values.items() if found}
    words = {name: {fold_word(value) for value in found} for name, found in values.items()}
    known = [name for name in values if len(words[name]) > 1 and words[name] <= WORDS.keys()]
    mostly = [name for name in values if sum(fold_word(v) in WORDS for v in values[name]) > 0.9 * len(values[name])]
    few = [name for name in values if 1 < len(words[name]) <= MOST_LABELS and by_rank("label", name) < UNNAMED]
    label = next(iter(best("label", known) + best("label", mostly) + best("label", few)), None)
    length = {name: sum(len(v) for v in found if isinstance(v, str)) / len(found) for name, found in values.items()}
    others = [name for name in values if name != label and length[name] > 0]
    named = [name for name in best("text", others) if by_rank("text", name) < UNNAMED and length[name] > 5]
    text = (named + sorted(others, key=lambda name: -length[name]))[:1]
    if label is None or not text:
        raise UserError(
            f"{path} has the columns {', '.join(header) or 'none'}; expected one of texts and one of labels, such as "
            "text and label: give the table a header, or name them under `columns` in an entry of datasets"
        )
    found_columns = {"text": text[0], "label": label}
    for role in ("group", "category", "time"):
        free = [name for name in best(role, values) if by_rank(role, name) < UNNAMED]
        free = [name for name in free if name not in found_columns.values() and fits(role, name, values[name])]
        found_columns |= {role: free[0]} if free else {}
    if all(name == str(number) for number, name in enumerate(header, 1)):
        return {role: int(name) for role, name in found_columns.items()}
    return dict(found_columns)


def fits(role: str, name: str, values: list[Any]) -> bool:
    """Whether values can have a role beside text and label."""
    if role != "time":
        return True
    try:
        return bool([parse_time(value, name) for value in values])
    except ValueError:
        return False


def by_rank(role: str, name: str) -> int:
    """The place of a name among those that a role usually has; UNNAMED if it is none."""
    names = NAMES[role].split()
    folded = name.strip().casefold().replace(" ", "_")
    return names.index(folded) if folded in names else UNNAMED


def best(role: str, names: Iterable[str]) -> list[str]:
    """Names, the most usual ones of a role first."""
    return sorted(names, key=lambda name: by_rank(role, name))


def guess_labels(path: Path, layout: Layout) -> dict[str, list[str]]:
    """The words that mean fraud and legitimate; none if the defaults do. Raises UserError for unknown words."""
    name = layout.name("label")
    counts: Counter[str] = Counter()
    for row in read_rows(path, layout):
        value = row.values.get(name)
        if isinstance(value, str | int | float) and str(value).strip():
            counts[fold_word(value)] += 1
    if all(word in LABELS or (word not in WORDS and rare(word, counts)) for word in counts):
        return {}
    unknown = [word for word in counts if word not in WORDS and not rare(word, counts)]
    if unknown:
        shown = ", ".join(f"{word} ({counts[word]} rows)" for word in unknown[:MOST_LABELS])
        raise UserError(
            f"{path}: the column {name} has the labels {shown}, whose meaning is unsure: write an entry with "
            f"columns: {{text: {layout.name('text')}, label: {name}}} and labels: {{fraud: […], legitimate: […]}}"
        )
    return {
        side: sorted(word for word in counts if WORDS.get(word) is meaning)
        for side, meaning in (("fraud", True), ("legitimate", False))
    }


def rare(word: str, counts: Counter[str]) -> bool:
    """Whether a label appears so rarely that it is a mistake."""
    return counts[word] <= max(1, RARE * counts.total()) and len(counts) > 2
