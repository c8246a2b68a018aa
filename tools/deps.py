"""Writes each stage's code into its deps in dvc.yaml, file by file, as the imports have it.

python -m tools.deps
"""

import re
from pathlib import Path

from stages.code import imported_files

PIPELINE = Path("dvc.yaml")
# What a stage reads beside its code.
FILES = {
    "report": [
        "stages/report/page.css",
        "stages/report/page.js",
        "stages/serve/page/base.css",
        "stages/serve/page/language.js",
    ]
}
PROGRAMS = {"benchmark": ["stages.benchmark.prequantize", "stages.benchmark.measure"]}  # started, not imported


def code_deps(stage: str) -> list[str]:
    """The files of this project that a stage's results depend on."""
    return sorted([*imported_files(f"stages.{stage}.__main__", *PROGRAMS.get(stage, [])), *FILES.get(stage, [])])


def with_code_deps(pipeline: str) -> str:
    """The text of dvc.yaml with the code of each stage renewed."""

    def renewed(match: re.Match) -> str:
        code = "".join(f"      - {file}\n" for file in code_deps(match["stage"]))
        return match["head"] + code + re.sub(r"      - stages/.*\n", "", match["deps"])

    pattern = r"(?P<head>^  (?P<stage>\w+):\n(?:    (?!deps:).*\n)*    deps:\n)(?P<deps>(?:      .*\n)+)"
    return re.sub(pattern, renewed, pipeline, flags=re.MULTILINE)


if __name__ == "__main__":
    PIPELINE.write_text(with_code_deps(PIPELINE.read_text(encoding="utf-8")), encoding="utf-8")
