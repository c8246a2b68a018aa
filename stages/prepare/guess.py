"""Guesses how a file is read: its encoding, its columns, and which words mean fraud."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from stages.data.csv_table import has_other_bytes
from stages.data.files import decoded_lines, form_of, head, read_rows, read_whole
from stages.data.layout import Layout, fold_word
from stages.data.lines import DataError
from stages.data.table import DELIMITERS, header_cells, open_quote, read_cells, table_lines
from stages.data.values import LABELS, parse_time, shorten
from stages.data.workbook import read_parquet, sheets
from stages.errors import UserError

Table = tuple[list[str], list[dict[str, Any]]]  # names, and rows by them
NAMES = {
    "text": "input text content message messages msg sms body v2 sentence email "
    "文本 内容 短信 短信内容 消息 正文 文字 话术 原文",
    "label": "label is_fraud fraud is_spam spam target class y v1 category type "
    "标签 是否诈骗 是否欺诈 诈骗 类别 标注 分类",
    "group": "group case case_id group_id dialog_id dialogue_id session_id thread "
    "case_no case_number caseid conversation_id call_id chat_id thread_id ticket_id "
    "案件 案件编号 案件号 案号 案件id 会话 会话编号 会话号 会话id 对话编号 对话号 对话id 通话编号 通话号 通话id 工单号 "
    "工单编号 编组",
    "category": "category subcategory kind scene type 类型 类别 场景 诈骗类型",
    "time": "time date timestamp datetime created_at sent_at 时间 日期 发送时间 创建时间",
}
FRAUD = (
    "1 true yes y spam fraud scam phishing smishing fraudulent positive 是 诈骗 欺诈 垃圾 垃圾短信 涉诈 涉嫌诈骗 有风险"
)
LEGITIMATE = (
    "0 false no n ham legit legitimate normal benign safe negative -1 否 正常 正常短信 非诈骗 非欺诈 无风险 不涉诈"
)
WORDS = {
    word: side == "fraud" for side, words in (("fraud", FRAUD), ("legitimate", LEGITIMATE)) for word in words.split()
}
BYTES = 1 << 20  # of the file, to detect its encoding
SAMPLE = 2000  # rows, to guess columns
MOST_LABELS = 10
UNNAMED = 1000
RARE = 0.01  # of all rows
UTF_8 = 0.8  # of the bytes beyond ASCII, so a file is UTF-8; of GBK's a quarter may look like it
HARMLESS = re.compile(
    r"legit|harmless|normal|benign|safe|genuine|\bham\b|is_ham|(^|[_ ])(no|not|non)[_ -]|正常|合法|安全|^[非不]"
)
CHINESE = re.compile("[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]")
IDEOGRAPH = re.compile("[\u4e00-\u9fff]")
# Frequent characters: half of a Chinese text or more, and a tenth of a Korean or Japanese one that is read as GB18030.
FREQUENT = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学"
    "如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将"
    "两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加月话合回特代内信表化老给世位次度门任常先通教儿原东声提立及比员解水"
    "名真论处走各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命金指许统区保至形便空决"
    "您费退款账卡号码验证银元账户请转收"
)
FREQUENT_SHARE, FEW = 0.2, 20  # of ideographs; where there are fewer, their share says nothing
SURE = 12  # bytes beyond ASCII: 1 of 20,000 lines of GBK with so many is UTF-8 by chance
WESTERN = 0.3  # of the bytes beyond ASCII: more than any language of cp1252 has


def detect_encoding(path: Path) -> str:
    """The encoding of a file, empty for UTF-8 and for files that are no text. Raises UserError for one that can't be
    guessed: read wrongly, it would be text all the same."""
    start = head(path, BYTES)
    if start.startswith((b"PK\x03\x04", b"PAR1", b"\xd0\xcf\x11\xe0")):  # xlsx, Parquet, xls
        return ""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    whole = start.rpartition(b"\n")[0] or start  # a character may be cut at the end
    kept = whole.decode("utf-8", errors="ignore").encode("utf-8")
    if beyond_ascii(kept) >= UTF_8 * beyond_ascii(whole):  # also with broken rows, or texts cut within a character
        return ""
    require_one_encoding(path)
    text = whole.decode("gb18030", errors="replace")
    ideographs = IDEOGRAPH.findall(text)
    frequent = sum(character in FREQUENT for character in ideographs)
    is_chinese = len(ideographs) < FEW or frequent >= FREQUENT_SHARE * len(ideographs)
    if is_chinese and len(CHINESE.findall(text)) > 0.9 * sum(not c.isascii() for c in text):
        return "gb18030"
    if beyond_ascii(whole) > WESTERN * len(whole):
        raise UserError(
            f"{path}: the encoding can't be guessed: found neither UTF-8, UTF-16, GB18030 nor a Western one; expected "
            "one of these: name the `encoding` in the entry of datasets, such as big5, euc-kr or shift_jis, or convert "
            "the file to UTF-8"
        )
    try:
        whole.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def require_one_encoding(path: Path) -> None:
    """Raises UserError for a file of which some lines are UTF-8 and others are not: no encoding reads it."""
    numbered = [(n, line) for n, line in enumerate(read_whole(path).split(b"\n"), 1) if not line.isascii()]
    others = [(n, line) for n, line in numbered if not is_utf_8(line)]
    sure = [n for n, line in numbered if beyond_ascii(line) >= SURE and is_utf_8(line)]
    if others and sure and (sure[0] == 1 or len(sure) > RARE * len(numbered)):  # line 1 is the header
        raise UserError(
            f"{path}: {len(others)} lines are no UTF-8, the first is line {others[0][0]}, while others are: "
            "files of two encodings were joined here; expected one encoding: convert each file before they are joined"
        )


def is_utf_8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def beyond_ascii(content: bytes) -> int:
    """The number of bytes that ASCII lacks."""
    return len(content) - len(content.translate(None, bytes(range(128, 256))))


def guess(path: Path, encoding: str) -> tuple[Layout, list[str]]:
    """How the file seems to be laid out, without labels, and the names of its columns."""
    for quotes in (True, False):
        try:
            header, columns = guess_table(path, first_rows(path, Layout(encoding=encoding, quotes=quotes)))
            layout = Layout(columns, {}, encoding, quotes)
            for _ in read_rows(path, layout):  # to its end, where an open quote shows
                pass
            return layout, header
        except DataError as error:
            if not quotes or "quotes: false" not in str(error):
                raise
            print(f"check: {error}")
    raise AssertionError


def guess_table(path: Path, tables: list[Table]) -> tuple[list[str], dict[str, str | int]]:
    """The names and the guessed columns of the first table that has some. Raises the first one's error if none has."""
    errors = []
    held = [(header, rows) for header, rows in tables if header or rows]
    if not held:
        raise UserError(f"{path} is empty; expected rows of texts and labels")
    for header, rows in [table for table in held if table[1]] or held:
        try:
            return header, guess_columns(path, header, rows)
        except UserError as error:
            errors.append(error)
    raise errors[0]


def first_rows(path: Path, layout: Layout) -> list[Table]:
    """The names of the columns, and the first rows by them. A workbook has several such tables."""
    match form_of(path):
        case "excel":
            of_sheets = [[cells for _, cells in rows[: SAMPLE + 1]] for rows in sheets(path).values()]
            return [by_name([[str(cell).strip() for cell in row] for row in rows]) for rows in of_sheets]
        case "table":
            lines = table_lines(list(decoded_lines(path, layout)))
            delimiter = guess_delimiter(lines, layout)
            reader = read_cells(lines, delimiter, layout)
            cells, end = [], 0
            try:
                for row in islice(reader, SAMPLE + 1):
                    cells.append(row)
                    end = reader.line_num
            except csv.Error as error:
                raise open_quote(path, end + 1, error) from None
            return [by_name([row for row in cells if any(map(str.strip, row))])]
        case "parquet":
            found = [row.values for row in islice(read_parquet(path, None), SAMPLE)]
        case _:
            whole = list(islice(read_rows(path, layout), SAMPLE))
            found = [row.values for row in whole if not row.problem]
            if whole and not found:
                raise DataError(
                    f"{path} has no row that can be read; line {whole[0].line}: {whole[0].problem}; expected objects "
                    "of JSON, or a table whose name ends in .csv, .tsv or .txt"
                )
    return [(list(dict.fromkeys(key for row in found for key in row)), found)]


def guess_delimiter(lines: list[str], layout: Layout) -> str:
    """The delimiter by which the first row has most cells; without a header, one by which it has a label."""
    rows = {delimiter: header_cells(lines, delimiter, layout) for delimiter in DELIMITERS}
    return max(rows, key=lambda each: (any(fold_word(cell) in WORDS for cell in rows[each]), len(rows[each])))


def by_name(cells: list[list[str]]) -> Table:
    """The names in the first row and the other rows by them. A first row with a label has no names, but numbers."""
    header = cells[0] if cells else []
    if is_row(header, cells[1:]):
        header, cells = [str(number) for number in range(1, len(header) + 1)], [[], *cells]
    return header, [dict(zip(header, row, strict=False)) for row in cells[1:]]


def is_row(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Whether a first row holds values: one is a label that comes again below it, and none is a usual name.

    A word alone shows nothing, since columns of labels are called spam, fraud or y, too.
    """
    below = [{fold_word(row[place]) for row in others if place < len(row)} for place in range(len(first))]
    again = any(word in WORDS and word in found for word, found in zip(map(fold_word, first), below, strict=True))
    names = [cell for cell in first if fold_word(cell) not in WORDS]
    return again and all(by_rank(role, name) == UNNAMED for role in NAMES for name in names)


def guess_columns(path: Path, header: Sequence[str], rows: list[dict[str, Any]]) -> dict[str, str | int]:
    """The column of each role. Raises UserError if none can be the label or the text."""
    if not rows:
        raise UserError(f"{path} has no rows below the header {', '.join(header)}; expected texts and labels there")
    if has_other_bytes("".join(header)):
        raise UserError(
            f"{path}: the header is in another encoding than the rows: {shorten(list(header), 300)}; expected one: "
            "write the header anew"
        )
    values = {name: [v for row in rows if (v := row.get(name)) not in (None, "")] for name in header if name}
    values = {name: found for name, found in values.items() if found}
    words = {name: {fold_word(value) for value in found} for name, found in values.items()}
    label = guess_label(path, values, words)
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


def guess_label(path: Path, values: Mapping[str, list[Any]], words: Mapping[str, set[str]]) -> str | None:
    """The column of labels, by its name, else the only one whose values mean fraud or legitimate.

    Args:
        path: of the file.
        values: those of each column that are not blank.
        words: the same, folded.

    Returns:
        Its name; None if no column can be it. Raises UserError if several can, or if 1 there may mean legitimate.
    """
    known = [name for name in values if len(words[name]) > 1 and words[name] <= WORDS.keys()]
    mostly = [name for name in values if sum(fold_word(v) in WORDS for v in values[name]) > 0.9 * len(values[name])]
    few = [name for name in values if 1 < len(words[name]) <= MOST_LABELS]
    usual = [
        name for group in (known, mostly, few) for name in best("label", group) if by_rank("label", name) < UNNAMED
    ]
    if not usual and len(known) > 1:
        raise UserError(
            f"{path} has the columns {', '.join(known)}, each of which may hold the labels; expected one, or one named "
            "label: name it under `columns` in an entry of datasets"
        )
    found = next(iter(usual + known + mostly), None)
    if found and HARMLESS.search(found.casefold()) and words[found] & {"1", "true", "yes", "y", "是"}:
        raise UserError(
            f"{path}: a 1 in the column {found} may mean a harmless text: write an entry with columns: "
            f"{{label: {found}, …}} and labels: {{fraud: [0], legitimate: [1]}}, or the other way round"
        )
    return found


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
    if {"-1", "0"} <= counts.keys():  # harmless and not judged, or the other way round
        unknown += ["-1", "0"]
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
