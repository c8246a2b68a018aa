"""Does the export score as the evaluated model does? It is loaded by its own consumer, in a process of its own."""

import json
import math
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from stages.errors import UserError

EXACT = 1e-4  # largest difference of log-odds of float32
ROUNDED = 0.03  # mean difference where either side computes in 16 bits
ORDERED = 0.9  # least rank correlation of a lossy export; the default model's: Q4_K_M .994, broken ones .68 and .01
# Texts that a consumer may read otherwise than training did.
HOSTILE = (
    "",
    " ",
    "\n\n\n",
    "王某: 您好\n李某：请转账\n\n",
    "王某:\n李某：\n",
    "客服：链接是 http://example.com\t客服：<b>客服：好</b>",
    "<bos><eos><pad><unk><|im_end|>\n<|im_start|>assistant\n<|endoftext|></s>[SEP]",
    '{"is_fraud": true}',
    "😀👩‍👩‍👧 e\u0301 \u200b\u2028\x1c 中奖了🎉",
    "请把验证码告诉我。" * 1112,  # 10,008 characters
)


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of n texts. log_odds: calibrated, float of shape (n,). label: bool of shape (n,). seconds: they took."""

    log_odds: np.ndarray
    label: np.ndarray
    seconds: float

    def rows(self, part: slice) -> "Scored":
        return Scored(self.log_odds[part], self.label[part], self.seconds)


def score_export(folder: Path, texts: list[str], base_folder: Path) -> Scored:
    """Scores texts by score.py of the export, in a process that can't import this project. Raises UserError if that
    fails.

    Args:
        folder: of the export.
        texts: n texts.
        base_folder: the base model, which an adapter needs.
    """
    with tempfile.TemporaryDirectory() as place:
        file, out = Path(place) / "texts.jsonl", Path(place) / "scores.jsonl"
        file.write_text("".join(json.dumps({"input": text}) + "\n" for text in texts), encoding="utf-8")
        command = [sys.executable, "-I", folder / "score.py", "--file", file, "--out", out, "--base", base_folder]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
            raise UserError(
                f"score.py of the export failed: {(errors or lines or ['no message'])[-1]}; expected "
                "scores: install the packages of requirements-export.txt, or report it with the versions in export.json"
            )
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    seconds = json.loads(done.stdout.strip().splitlines()[-1])["seconds"]
    log_odds, label = (np.array([row[name] for row in rows]) for name in ("log_odds", "label"))
    return Scored(log_odds, label, seconds)


def compare(found: Scored, expected: Scored, y_true: np.ndarray) -> dict[str, float]:
    """What the export changes on labelled rows.

    Args:
        found: the export's scores of n rows.
        expected: predict's.
        y_true: bool of shape (n,).
    """
    differences = np.abs(found.log_odds - expected.log_odds)
    ranked = {}
    if y_true.any() and not y_true.all():
        before, after = (average_precision_score(y_true, each.log_odds) for each in (expected, found))
        ranked = {"average_precision_difference": float(after - before)}
    if np.ptp(found.log_odds) and np.ptp(expected.log_odds):  # equal scores have no correlation
        ranked["rank_correlation"] = float(spearmanr(found.log_odds, expected.log_odds).statistic)
    return {
        "rows": len(y_true),
        "log_odds_largest_difference": float(differences.max()),
        "log_odds_mean_difference": float(differences.mean()),
        "decisions_changed": int((found.label != expected.label).sum()),
        **ranked,
    }


def require_parity(figures: dict[str, Any], exact: bool) -> None:
    """Raises UserError if a lossless export is beyond its tolerance.

    Args:
        figures: of `compare`, and of HOSTILE under hostile_largest_difference.
        exact: whether both sides compute in float32, so that the largest difference counts. Else the mean does.
    """
    if exact:
        name, limit = "largest", EXACT
        value = max(figures["log_odds_largest_difference"], figures["hostile_largest_difference"])
    else:
        name, limit, value = "mean", ROUNDED, figures["log_odds_mean_difference"]
    if not value <= limit:  # NaN, too
        raise UserError(
            f"the export does not score as predict does: the {name} difference of log-odds is {value:.2g}, expected at "
            f"most {limit:g}. Nothing was written. Export another kind, or report it with your base model"
        )


def require_order(figures: dict[str, Any]) -> None:
    """Raises UserError if a lossy export orders texts so differently that no calibration helps.

    Args:
        figures: of `compare`.
    """
    value = figures.get("rank_correlation", math.nan)  # equal scores have none
    if not value >= ORDERED:
        raise UserError(
            f"the export orders texts otherwise than predict: rank correlation {value:.2g}, expected at least "
            f"{ORDERED}. Rounding can take back what training added. Nothing was written. Export other weights or kinds"
        )


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
