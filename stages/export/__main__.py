"""Exports the trained model for use without this project, and checks that the export scores as predict does.

python -m stages.export classifier --out exports/classifier
"""

import argparse
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from stages import params
from stages.artifacts import replacing_folder, write_json
from stages.classifier.scorer import load_scorer
from stages.classifier.valid_scores import valid_with_scores
from stages.command import run
from stages.errors import UserError
from stages.export import operating_point
from stages.export import score as score_program
from stages.export.card import export_card
from stages.export.causal import SCORING, write_adapter, write_merged
from stages.export.classifier import scale_head, write_classifier
from stages.export.gguf import write_gguf
from stages.export.merge import Source, read_source
from stages.export.onnx import scale_graph, write_onnx
from stages.export.parity import HOSTILE, Scored, compare, folder_bytes, require_order, require_parity, score_export
from stages.export.record import RECORD_FILE, band_keys, make_record, plain_threshold, write_record
from stages.export.tokenizer import reads_alike
from stages.model.device import environment, pick_device, pick_dtype
from stages.model.scoring import require_finite
from stages.params_file import read_lock
from stages.paths import BASE_MODEL, LOCK, PROCESSED, SELECTED
from stages.serve.operating import curve, points_of_selected, write_points
from stages.text.example import Example, read_examples

PARITY_FILE = "parity.json"
LOSSY = ("nf4", "int8", "q8_0", "q4_k_m")


@dataclass(frozen=True)
class Kind:
    """write: writes the artefact and returns what export.json says of it. dtypes: of weights, the default first. scale:
    multiplies the artefact's own log-odds; None where score.py does."""

    write: Callable[[Path, Source, str], dict[str, Any]]
    dtypes: tuple[str, ...]
    scale: Callable[[Path, float], None] | None = None


KINDS = {
    "classifier": Kind(write_classifier, ("float32", "bfloat16", "nf4"), scale_head),
    "merged": Kind(write_merged, ("bfloat16", "float32")),
    "adapter": Kind(write_adapter, ("float32",)),
    "onnx": Kind(write_onnx, ("float32", "int8"), scale_graph),
    "gguf": Kind(write_gguf, ("q8_0", "q4_k_m")),
}


@dataclass(frozen=True, eq=False)
class Rows:
    """The texts that are compared. reference: predict's log-odds of HOSTILE, valid and test, before calibration, float
    of shape (n,). seconds: they took."""

    valid: list[Example]
    test: list[Example]
    reference: np.ndarray
    seconds: float

    @property
    def texts(self) -> list[str]:
        return [*HOSTILE, *(row.input for row in (*self.valid, *self.test))]

    @property
    def parts(self) -> tuple[slice, slice, slice]:
        """Where the hostile texts, valid and test are."""
        first, second = len(HOSTILE), len(HOSTILE) + len(self.valid)
        return slice(0, first), slice(first, second), slice(second, None)


def main() -> None:
    arguments = read_arguments()
    kind, dtype = KINDS[arguments.kind], arguments.dtype
    require_replaceable(arguments.out)
    source = read_source(SELECTED, BASE_MODEL)
    lossy = dtype in LOSSY or source.method.load_in_8bit
    valid_with_scores(SELECTED, source.selected)
    require_splits_of_model()
    rows = score_by_predict(arguments.rows, with_test=lossy)
    with replacing_folder(arguments.out) as new:
        record = make_record(arguments.kind, dtype, source, kind.write(new, source, dtype))
        shutil.copyfile(str(score_program.__file__), new / "score.py")
        tokenizer = new / SCORING if (new / SCORING).is_dir() else new
        record["auto_tokenizer"] = reads_alike(tokenizer, source, rows.texts)
        write_record(new / RECORD_FILE, record)
        figures = check(new, record, source, rows, kind if lossy else None)
        write_json(new / PARITY_FILE, figures)
        (new / "README.md").write_text(export_card(source.selected, record, figures), encoding="utf-8")
        for file in filter(Path.is_file, new.rglob("*")):
            file.chmod(0o644)  # libraries make some for their owner alone
    print(described(arguments.kind, dtype, figures, arguments.out))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stages.export", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=KINDS, help="what to write (docs/export.md)")
    parser.add_argument("--out", type=Path, help="folder (default: exports/KIND); one that holds an export is replaced")
    parser.add_argument("--dtype", help="; ".join(f"{name}: {', '.join(kind.dtypes)}" for name, kind in KINDS.items()))
    parser.add_argument("--rows", type=int, help="compare this many rows of a set, evenly spaced (default: all)")
    arguments = parser.parse_args()
    dtypes = KINDS[arguments.kind].dtypes
    arguments.dtype = arguments.dtype or dtypes[0]
    arguments.out = arguments.out or Path("exports") / arguments.kind
    if arguments.dtype not in dtypes:
        parser.error(f"--dtype is {arguments.dtype}; expected one of {', '.join(dtypes)} for {arguments.kind}")
    if arguments.rows is not None and arguments.rows < 2:
        parser.error("--rows must be 2 or more")
    return arguments


def require_replaceable(out: Path) -> None:
    """Raises UserError for a path that holds something else than an export."""
    if out.is_dir() and (not any(out.iterdir()) or (out / RECORD_FILE).is_file()):
        return
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists and is no export; expected a free name, or a folder with {RECORD_FILE}")


def require_splits_of_model() -> None:
    """Raises UserError if valid or test are not those of the last run, by dvc.lock: their rows could be train's."""
    stages = read_lock()
    for stage, name in (("select", "valid"), ("report", "test")):
        file = PROCESSED / f"{name}.jsonl"
        if not file.is_file():  # only some exports need test
            continue
        found = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        for dep in stages.get(stage, {}).get("deps", []):
            if dep["path"] == file.as_posix() and dep.get("md5", found) != found:
                raise UserError(f"{file} is not the one that stage {stage} read, by {LOCK}: run `dvc repro`")


def score_by_predict(most: int | None, with_test: bool) -> Rows:
    """Scores the texts as predict does on this machine.

    most: rows of a set; None for all. with_test: whether test is scored too.
    """
    names = ("valid", "test") if with_test else ("valid",)
    sets = [spaced(read_examples(PROCESSED / f"{name}.jsonl"), most) for name in names]
    valid, test = sets[0], sets[1] if with_test else []
    rows = Rows(valid, test, np.zeros(0), 0.0)
    scorer = load_scorer()
    start = time.perf_counter()
    scores = scorer.score(rows.texts, title="predict")
    seconds = time.perf_counter() - start
    require_finite(scores.log_odds, [f"text {number}" for number in range(len(scores.log_odds))])
    return replace(rows, reference=scores.log_odds, seconds=seconds)


def spaced(examples: list[Example], most: int | None) -> list[Example]:
    """At most so many rows, evenly spaced."""
    if most is None or most >= len(examples):
        return examples
    return [examples[int(place)] for place in np.linspace(0, len(examples) - 1, most)]


def check(folder: Path, record: dict[str, Any], source: Source, rows: Rows, lossy: Kind | None) -> dict[str, Any]:
    """Scores the texts by the written export, compares, and returns the figures of parity.json. Writes what each
    threshold means on valid, for the server's slider.

    Args:
        folder: of the export. A lossy one gets a calibration and a threshold of its own here.
        record: export.json.
        source: the trained model.
        rows: the texts, scored by predict.
        lossy: the kind, if its scores may differ.
    """
    selected = source.selected
    calibrated = selected.calibration.log_odds(rows.reference)
    labels = operating_point.labels_of(rows.reference, selected.calibration, selected.threshold)
    expected = Scored(calibrated, labels, rows.seconds)
    found = score_export(folder, rows.texts, source.base_folder.resolve())
    hostile, valid, _ = rows.parts
    y_true = np.array([row.label for row in rows.valid])
    figures: dict[str, Any] = {
        "kind": record["kind"],
        "weights": record["weights"],
        "valid": compare(found.rows(valid), expected.rows(valid), y_true),
        "texts_per_second": len(rows.texts) / found.seconds,
        "predict_texts_per_second": len(rows.texts) / rows.seconds,
        "environment": environment(pick_device()),
        "load_average": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    final = found.log_odds[valid]
    worst = np.abs(found.log_odds[hostile] - expected.log_odds[hostile]).max()
    figures["valid"]["hostile_largest_difference"] = float(worst)
    if lossy is None:
        both_float32 = "float32" in record["weights"] and computes_float32(source)
        require_parity(figures["valid"], exact=both_float32)
    else:
        require_order(figures["valid"])
        again, further = recalibrate(folder, record, source, rows, (lossy, found, expected))
        figures |= further
        final = again.log_odds[valid]
    if lossy is None and len(y_true) < sum(int(selected.valid[key]) for key in ("tn", "fp", "fn", "tp")):
        points = points_of_selected(SELECTED)  # of all rows: on them the threshold was chosen
    else:
        points = curve(y_true, expit(final), selected.promised["fraud_fraction"])
    write_points(folder, points)
    return figures | {"bytes": folder_bytes(folder)}


def computes_float32(source: Source) -> bool:
    return str(pick_dtype(source.method.dtype, pick_device())) == "torch.float32"


def recalibrate(
    folder: Path, record: dict[str, Any], source: Source, rows: Rows, scored: tuple[Kind, Scored, Scored]
) -> tuple[Scored, dict[str, Any]]:
    """Gives a lossy export its own calibration and threshold, and returns its scores and what it is worth with them.

    Args:
        folder, record: of the export; both are changed.
        source: the trained model.
        rows: the texts, scored by predict.
        scored: the kind, and the export's and predict's scores of the texts.
    """
    kind, found, expected = scored
    samples = params.load().evaluate.bootstrap_samples
    selected = source.selected
    _, valid, test = rows.parts
    raw = (found.log_odds - record["offset"]) / record["slope"]
    system = operating_point.choose(rows.valid, raw[valid], selected, samples)
    slope, offset = system.calibration.slope, system.calibration.offset
    if kind.scale:
        kind.scale(folder, slope)
    record |= {
        "slope": 1.0 if kind.scale else slope,
        "offset": offset,
        "probability_threshold": system.threshold,
        "threshold": plain_threshold(system.threshold, offset),
        **band_keys(operating_point.choose_own_bands(rows.valid, raw[valid], system, selected), offset),
    }
    write_record(folder / RECORD_FILE, record)
    again = Scored(
        system.calibration.log_odds(raw),
        operating_point.labels_of(raw, system.calibration, system.threshold),
        found.seconds,
    )
    y_true = np.array([row.label for row in rows.valid])
    original = operating_point.original_system(rows.valid, rows.reference[valid], selected, samples)
    return again, {
        "recalibrated": {
            **compare(again.rows(valid), expected.rows(valid), y_true),
            "slope": slope,
            "offset": offset,
            "threshold": system.threshold,
        },
        "test": operating_point.compare_on_test(
            rows.test, (original, rows.reference[test]), (system, raw[test]), samples
        ),
    }


def described(kind: str, dtype: str, figures: dict[str, Any], out: Path) -> str:
    """The last line of the output."""
    valid = figures.get("recalibrated", figures["valid"])
    return (
        f"export: {kind}, {dtype}, {figures['bytes'] / 1e6:,.0f} MB in {out}: log-odds differ from predict's by at "
        f"most {valid['log_odds_largest_difference']:.2g} (mean {valid['log_odds_mean_difference']:.2g}) on "
        f"{valid['rows']} rows of valid, {valid['decisions_changed']} decisions changed"
    )


if __name__ == "__main__":
    run(main)
