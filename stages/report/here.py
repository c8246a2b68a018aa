"""What goes stale, so only `make report` shows it: commit, time of day, timings, and an earlier run's figures."""

import json
import subprocess
from datetime import UTC, datetime
from typing import Any

from stages.artifacts import read_json
from stages.errors import UserError
from stages.paths import METRICS
from stages.report.html import Cell, card, paragraph, table
from stages.report.read import Run, opened
from stages.report.words import Words, label, say, signed

FILES = {
    "train": Words("训练", "training"),
    "probe": Words("探针", "probe"),
}
BESIDE = ("average_precision", "f1", "precision", "recall", "false_alarms_per_1000", "threshold")


def git(*arguments: str) -> str:
    """What git prints. Raises UserError if it fails."""
    try:
        ran = subprocess.run(["git", *arguments], capture_output=True, encoding="utf-8", check=False)
    except OSError as error:
        raise UserError(f"git can't be started ({error.strerror}); it names the commit of the report") from None
    if ran.returncode:
        raise UserError(f"git {' '.join(arguments)} failed: {ran.stderr.strip()}")
    return ran.stdout.strip()


def machine(run: Run) -> str:
    """Commit, time of day, speed and memory on this machine."""
    changed = git("status", "--porcelain", "--untracked-files=no")
    commit = git("rev-parse", "--short=12", "HEAD")
    rows: list[list[Cell]] = [
        [
            Words("提交", "commit"),
            say("{commit}，另有未提交的改动", "{commit}, with uncommitted changes", commit=commit)
            if changed
            else commit,
        ],
        [Words("生成时间", "written"), datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")],
    ]
    for name, words in FILES.items():
        figures = opened(METRICS / f"{name}.json", read_json)
        device = str(figures.get("environment", {}).get("device", "–"))
        for key, value in sorted(figures.get("measured", {}).items()):
            rows.append([say("{stage}：{key}", "{stage}: {key}", stage=words, key=key), measured(key, value)])
        rows.append([say("{stage}：设备", "{stage}: device", stage=words), device])
    for system in ("model", "zero_shot"):
        if rate := run.evaluate[system].get("samples_per_second"):
            words = say("评估：{system}，条/秒", "evaluation: {system}, texts/s", system=label(system))
            rows.append([words, f"{rate:.1f}"])
    return card(Words("本机", "This machine"), table([Words("什么", "what"), Words("值", "value")], rows), css="wide")


def measured(key: str, value: float) -> str:
    return f"{value / 1e9:.2f} GB" if key.endswith("_bytes") else f"{value:,.1f}"


def earlier(run: Run, rev: str) -> str:
    """The figures of the system in use beside those of a revision."""
    before = figures_at(rev, "metrics/evaluate.json")
    used_before = figures_at(rev, "metrics/select.json").get("system", "model")
    now, then = run.evaluate[run.used], before.get(used_before, {})
    rows: list[list[Cell]] = [[Words("系统", "system"), label(run.used), label(used_before), ""]]
    for name in BESIDE:
        digits = 0 if name.endswith("1000") else 3
        here, there = now.get(name), then.get(name)
        cells = [f"{value:.{digits}f}" if value is not None else "–" for value in (here, there)]
        less = signed(here - there, digits) if here is not None and there is not None else "–"
        rows.append([name, *cells, less])
    rows.append(
        [Words("测试集条数", "rows of test"), *(str(block["size"]["rows"]) for block in (run.evaluate, before)), ""]
    )
    note = Words(
        "两次运行的测试集可能不同。单看这些数，差别不等于显著。",
        "The two runs may have different test sets, and these figures alone show no significance.",
    )
    title = say("与 {rev} 相比", "Beside {rev}", rev=rev)
    head: list[Cell] = ["", Words("本次", "this run"), rev, Words("差", "difference")]
    return card(title, table(head, rows), paragraph(note, "quiet small"), css="wide")


def figures_at(rev: str, path: str) -> dict[str, Any]:
    """A JSON file as a revision has it."""
    if rev.startswith("-"):
        raise UserError(f"AGAINST is {rev!r}; expected a branch, tag or commit of git")
    text = git("show", f"{rev}:{path}")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} at {rev} is no JSON ({error}); expected the metrics of a run") from None
