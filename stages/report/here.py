"""Writes the report with what goes stale: commit, time, timings, marked sentences and an earlier run. No stage.

python -m stages.report.here                     # runs/report.html
python -m stages.report.here --against main      # with the models of both runs on the rows that both tests hold
"""

import argparse
import subprocess
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from stages.artifacts import replacing
from stages.classifier.scorer import load_model_part
from stages.classifier.sentences import explain
from stages.classifier.trained import read_selected
from stages.command import run as run_command
from stages.compare.messages import data_difference, params_difference
from stages.compare.pairs import compare_pairs, pair
from stages.compare.sides import read_side
from stages.errors import UserError
from stages.params import PARAMS_FILE
from stages.params_file import read_lock, read_yaml
from stages.paths import BASE_MODEL, LOCK, PROBE_FIGURES, SELECTED, TRAIN_FIGURES
from stages.report.errors import KINDS, OPEN, Mark, Marks, rows_of
from stages.report.html import Cell, card, paragraph, table
from stages.report.page import page
from stages.report.read import Run, opened, read_figures, read_run
from stages.report.verdict import standing
from stages.report.words import Words, count, label, say, signed

OUT = Path("runs/report.html")
FILES = {
    TRAIN_FIGURES: Words("训练", "training"),
    PROBE_FIGURES: Words("探针", "probe"),
}
MEASURED = {
    "seconds": Words("用时", "time"),
    "samples_per_second": Words("条/秒", "texts/s"),
    "peak_memory_bytes": Words("内存峰值", "peak memory"),
    "rows": Words("条数", "texts"),
}
METRICS_BESIDE = {
    "average_precision": Words("平均精确率", "average precision"),
    "f1": Words("F1", "F1"),
    "precision": Words("精确率", "precision"),
    "recall": Words("召回率", "recall"),
}
STANDINGS = {
    "ahead": Words("本次的模型更好。", "This run's model is better."),
    "behind": Words("本次的模型更差。", "This run's model is worse."),
    "equal": Words("两个模型一样好，差别在容差之内。", "The models are equal within the margin."),
    "not shown": Words("看不出哪个模型更好。", "It is not shown which model is better."),
    "unknown": Words("单元太少，或没有分数，无法判断。", "Too few units, or no scores, to tell."),
}


def main() -> None:
    parser = argparse.ArgumentParser("python -m stages.report.here", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, help="the file (default: %(default)s)")
    parser.add_argument("--against", metavar="REV", help="an earlier run: a commit, an experiment, or a folder")
    given = parser.parse_args()
    require_present_params()
    found = read_run()
    beside = earlier(found, given.against) if given.against else ""
    text = page(found, beside, machine(found), sentences_of(found))
    with replacing(given.out) as file:
        file.write(text)
    print(f"report: {given.out}: open it in a browser")


def require_present_params() -> None:
    """Raises UserError if a param that a stage reads was changed after it ran: the page would state it of that run."""
    stages = read_lock()
    present = read_yaml(PARAMS_FILE)
    for name, stage in stages.items():
        if name == "benchmark":  # the page shows nothing of it
            continue
        for key, then in stage.get("params", {}).get(PARAMS_FILE.name, {}).items():
            if reduce(value_of, key.split("."), present) != then:
                raise UserError(
                    f"{PARAMS_FILE}: {key} is not what it was when stage {name} ran, by {LOCK}; expected the params "
                    "of the figures that are reported: run `dvc repro`, or take the change back"
                )


def value_of(section: Any, key: str) -> Any:
    return section.get(key) if isinstance(section, dict) else None


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
    """Commit, time of day, and speed and memory on the machine that ran the stage."""
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
    for path, words in FILES.items():
        figures = opened(path, read_figures)
        device = str(figures.get("environment", {}).get("device", "–"))
        for key, value in sorted(figures.get("measured", {}).items()):
            rows.append(
                [say("{stage}：{key}", "{stage}: {key}", stage=words, key=MEASURED.get(key, key)), measured(key, value)]
            )
        rows.append([say("{stage}：设备", "{stage}: device", stage=words), device])
    for system in ("model", "zero_shot"):
        if rate := run.evaluate.get(system, {}).get("samples_per_second"):
            words = say("评估：{system}，条/秒", "evaluation: {system}, texts/s", system=label(system))
            rows.append([words, f"{rate:.1f}"])
    head: list[Cell] = [Words("什么", "what"), Words("值", "value")]
    title = Words("时间、速度与内存", "Time, speed and memory")
    return card(title, table(head, rows, css="wrapped"), css="wide")


def measured(key: str, value: float) -> str:
    """A figure of a machine with its unit, by the end of its key.

    >>> measured("peak_memory_bytes", 4524687360), measured("seconds", 349.6), measured("rows", 2224)
    ('4.52 GB', '349.6 s', '2,224')
    """
    if key.endswith("_bytes"):
        return f"{value / 1e9:.2f} GB"
    return count(value) if isinstance(value, int) else f"{value:,.1f}{' s' if key.endswith('seconds') else ''}"


def earlier(run: Run, name: str) -> str:
    """The models of an earlier run and of this one, on the rows that both tests hold.

    Raises UserError if the outputs of the earlier run are not here, or if the tests share no rows.

    Args:
        run: this one.
        name: of the earlier one: a revision of git, an experiment, or a folder.
    """
    evaluate = run.params.evaluate
    before, now = (read_side(each, evaluate.bootstrap_samples) for each in (name, "."))
    pairs = pair(before, now)
    less = compare_pairs(pairs, evaluate.bootstrap_samples)
    then, here = (side.metrics(pairs.y_true) for side in (pairs.a, pairs.b))
    rows: list[list[Cell]] = []
    for key, words in METRICS_BESIDE.items():
        if key in less:
            ends = f" [{signed(less[f'{key}_low'])}, {signed(less[f'{key}_high'])}]" if f"{key}_low" in less else ""
            rows.append([words, f"{then[key]:.3f}", f"{here[key]:.3f}", signed(less[key]) + ends])
    note = say(
        "两个微调模型，在两个测试集共有的 {rows} 条文本上比较；测试集各有 {before} 条和 {now} 条，"
        "另有 {relabelled} 条标签不同，未计入。区间不含随机种子的影响。",
        "The fine-tuned models of both runs on the {rows} texts that both tests hold, of {before} and {now}. "
        "{relabelled} more have another label and are left out. Intervals don't hold the seed.",
        rows=count(len(pairs.y_true)),
        before=count(len(before.rows["test"])),
        now=count(len(now.rows["test"])),
        relabelled=count(pairs.relabelled),
    )
    differ: list[list[Cell]] = [
        [Words("数据的差别", "data that differ"), data_difference(before, now)],
        [Words("参数的差别", "params that differ"), params_difference(before.params, now.params)],
    ]
    head: list[Cell] = ["", name, Words("本次", "this run"), Words("差 [95 % 区间]", "difference [95 % interval]")]
    return card(
        say("与 {name} 相比", "Beside {name}", name=name),
        paragraph(STANDINGS[standing(less, evaluate.equivalence_margin)]),
        table(head, rows, css="wrapped"),
        paragraph(note, "quiet small"),
        table([Words("什么", "what"), f"{name} → ."], differ, right=2, css="wrapped"),
        css="wide",
    )


def sentences_of(run: Run) -> Marks:
    """The sentence of each open error that pushed the model most towards its error, by source; a pass a sentence."""
    selected = read_selected(SELECTED)
    errors = [row for kind in KINDS for row in rows_of(run, kind)[:OPEN]]
    if not errors:
        return {}
    model = load_model_part(SELECTED, BASE_MODEL)

    def score(texts: list[str]) -> np.ndarray:
        return model([selected.as_read(text) for text in texts], selected.max_tokens_per_batch, "")().log_odds

    found = {}
    for row, pieces in zip(errors, explain(score, [row["input"] for row in errors]), strict=True):
        towards = 1 if row["error"] == "false alarm" else -1
        most = max(pieces, key=lambda piece: towards * piece.effect)
        if len(pieces) > 1 and towards * most.effect > 0:
            found[row["source"]] = Mark(most.start, most.end, most.effect)
    return found


if __name__ == "__main__":
    run_command(main)
