"""Files of dialogues and of texts, and strategies that write them."""

import json
from dataclasses import replace
from pathlib import Path

from hypothesis import strategies as st

from stages import params
from tests.conftest import ROOT

PREPARE = replace(params.load(ROOT / "params.yaml").prepare, seed=1, test_fraction=0.2)
ONE_SIZE = replace(PREPARE, chunk_characters=[10_000])
HEADER = "case,speaker,content,is_fraud\n"
JSON_ROW = '{"case": 1, "speaker": "A", "content": "%s", "is_fraud": 1}\n'


def table(*rows: str, header: str = HEADER) -> str:
    return header + "".join(row + "\n" for row in rows)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def reasons(rows) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in rows.rejected]


values = st.sampled_from(
    ["a", "b", " b", "3", "3.0", "nan", "", " ", "x,y", 'he said "no"', "一\n二", "true", "1", "0.0"]
)
json_values = st.one_of(
    values, st.none(), st.booleans(), st.integers(-1, 3), st.sampled_from([0.0, 1.0, 2.5, 3.0, 1e17])
)


def json_lines(keys: tuple[str, ...]):
    row = st.fixed_dictionaries({}, optional=dict.fromkeys(keys, json_values)).map(json.dumps)
    return st.lists(st.one_of(row, st.sampled_from(["", "  ", "{", "[1]"])), min_size=1, max_size=30)


def encode(rows, end="\n", ascii_only=False):
    return "".join(json.dumps(row, ensure_ascii=ascii_only) + end for row in rows).encode()
