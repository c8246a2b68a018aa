"""How often do the intervals of evaluate, and the promises of select, hold? By simulation, with known truth.

python -m benchmarks.coverage --draws 400       (minutes on one core; no model and no GPU)

Each draw makes a valid and a test set. Scores are normal: fraud around +d, harmless texts around -d, with standard
deviation 1 and a correlation of .3 within units. The model has d = 1, the baseline d = .8, and their noise in a row has
a correlation of .5. The truth of a metric is its mean, over the draws, on a population of 60,000 rows: calibration and
threshold differ from draw to draw, as valid does. The truth of a promise is that of the draw's own threshold. Writes
results/coverage.json.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, command_parser, positive_int
from stages.artifacts import write_json
from stages.command import run
from stages.errors import UserError
from stages.evaluate.choices import System, Valid, choose_on_valid, combine_on_valid
from stages.evaluate.compare import compare_rows
from stages.evaluate.predictors import Predictions, combined, scored
from stages.metrics import ThresholdRule, decision_metrics, ranking_metrics
from stages.select.promise import promise
from stages.text.example import Example
from stages.units import effective_units

STRENGTHS = {"model": 1.0, "baseline": 0.8}
UNIT_CORRELATION, SYSTEM_CORRELATION = 0.3, 0.5
SETTINGS = {  # rows of each unit of test; valid has three units for four of test
    "20 units": np.full(20, 2),
    "65 units": np.full(65, 2),
    "100 heavy-tailed units": np.maximum(1, np.round(40 / np.arange(1, 101))).astype(int),
    "300 units": np.full(300, 2),
}
POPULATION = 60_000  # rows
RULES = {"max_f1": ThresholdRule("max_f1"), "precision_at_least": ThresholdRule("precision_at_least", 0.95)}
PROMISED = ("precision", "recall", "f1")
METRICS = ("average_precision", "roc_auc", "f1")
PROMISE_UNITS = (60, 100, 300)
COMPARED = ("baseline", "model", "combined", "model - baseline", "combined - baseline")


@dataclass(frozen=True)
class Drawn:
    """Rows with scores: labels (n_rows,), units (n_rows,), and the scores of each system (n_rows,)."""

    y_true: np.ndarray
    units: np.ndarray
    scores: dict[str, np.ndarray]


def draw(rng: np.random.Generator, rows: np.ndarray) -> Drawn:
    """Draws rows of half fraud. rows: of each unit, int of shape (n_units,)."""
    units = np.repeat(np.arange(len(rows)), rows)
    y_true = rng.random(len(units)) < 0.5

    def noise() -> np.ndarray:
        between, within = rng.normal(size=len(rows))[units], rng.normal(size=len(units))
        return UNIT_CORRELATION**0.5 * between + (1 - UNIT_CORRELATION) ** 0.5 * within

    common = noise()
    mixed = {
        system: SYSTEM_CORRELATION**0.5 * common + (1 - SYSTEM_CORRELATION) ** 0.5 * noise() for system in STRENGTHS
    }
    signs = np.where(y_true, 1, -1)
    return Drawn(y_true, units, {system: 2 * d * (d * signs + mixed[system]) for system, d in STRENGTHS.items()})


def ladder(valid: Drawn, rule: ThresholdRule, samples: int) -> dict[str, System]:
    """Model, baseline and their combination, with calibration and threshold chosen on valid."""
    rows = Valid(valid.y_true, valid.units, rule, "platt", samples)
    systems = {name: choose_on_valid(rows, scores) for name, scores in valid.scores.items()}
    return systems | {"combined": combine_on_valid((systems["model"], systems["baseline"]))}


def predict(systems: dict[str, System], drawn: Drawn) -> dict[str, Predictions]:
    """The predictions of `ladder` on other rows."""
    found = {name: scored(systems[name], scores) for name, scores in drawn.scores.items()}
    return found | {"combined": combined(systems["combined"], (found["model"], found["baseline"]))}


def truths(predictions: dict[str, Predictions], y_true: np.ndarray) -> dict[str, float]:
    """The metrics on many rows, by system and metric, and their differences to the baseline."""
    found: dict[str, float] = {}
    for system, output in predictions.items():
        of_system = ranking_metrics(y_true, np.asarray(output.log_odds)) | decision_metrics(y_true, output.y_pred)
        found |= {f"{system} {metric}": of_system[metric] for metric in METRICS}
    for system in ("model", "combined"):
        for metric in METRICS:
            found[f"{system} - baseline {metric}"] = found[f"{system} {metric}"] - found[f"baseline {metric}"]
    return found


def interval_of(comparison: dict[str, Any], name: str) -> tuple[float, float] | None:
    """The interval of a name of `truths` in a comparison of `compare_rows`, if it has one."""
    system, *less, metric = name.split(" ")
    block = comparison["ahead"][system] if less else comparison[system]
    return (block[f"{metric}_low"], block[f"{metric}_high"]) if f"{metric}_low" in block else None


def cover(rows: np.ndarray, draws: int, samples: int, population: Drawn) -> dict[str, dict[str, float]]:
    """The share of draws whose interval holds the truth, for each metric, and how the others miss it.

    Args:
        rows: of each unit of test, int of shape (n_units,).
        draws: number of simulated pairs of valid and test.
        samples: resamples of each.
        population: rows that the truth is computed on.
    """
    rng = np.random.default_rng(0)
    true, found = defaultdict(list), defaultdict(list)
    for _ in range(draws):
        valid, test = draw(rng, rng.permutation(rows)[: len(rows) * 3 // 4]), draw(rng, rows)
        systems = ladder(valid, RULES["max_f1"], samples)
        examples = [Example("", bool(y), unit=int(u)) for y, u in zip(test.y_true, test.units, strict=True)]
        comparison = compare_rows(examples, predict(systems, test), samples)
        for name, value in truths(predict(systems, population), population.y_true).items():
            true[name].append(value)
            found[name].append(interval_of(comparison, name) or (np.nan, np.nan))
    report = {}
    for name, bounds in found.items():
        low, high = np.array(bounds).T
        truth = np.mean(true[name])
        report[name] = {
            "truth": float(truth),
            "covered": float(np.mean((low <= truth) & (truth <= high))),
            "too_low": float(np.mean(high < truth)),
            "too_high": float(np.mean(low > truth)),
            "width": float(np.nanmean(high - low)),
        }
    return report


def keep_promises(units: int, draws: int, population: Drawn) -> dict[str, dict[str, dict[str, float]]]:
    """The share of draws in which the threshold's truth is at or above its bound, by rule and metric.

    Args:
        units: of valid, two rows each.
        draws: number of simulated valid sets.
        population: rows that the truth is computed on.
    """
    rng, report = np.random.default_rng(1), {}
    for name, rule in RULES.items():
        kept, bounds, true = defaultdict(list), defaultdict(list), defaultdict(list)
        for _ in range(draws):
            valid = draw(rng, np.full(units, 2))
            system = choose_on_valid(Valid(valid.y_true, valid.units, rule, "platt", 2), valid.scores["model"])
            promised = promise(valid.y_true, valid.units, valid.scores["model"], rule, "platt")
            decided = decision_metrics(population.y_true, scored(system, population.scores["model"]).y_pred)
            for metric in PROMISED:
                kept[metric].append(decided[metric] >= promised[f"{metric}_low"])
                bounds[metric].append(promised[f"{metric}_low"])
                true[metric].append(decided[metric])
        report[name] = {
            metric: {
                "kept": float(np.mean(kept[metric])),
                "bound": float(np.mean(bounds[metric])),
                "truth": float(np.mean(true[metric])),
            }
            for metric in PROMISED
        }
    return report


def table(report: dict[str, Any]) -> list[str]:
    """The figures as lines of Markdown; a cell holds those of METRICS, or of PROMISED."""
    lines = [f"| 95 % interval of | {' | '.join(SETTINGS)} |", f"|---|{'---|' * len(SETTINGS)}"]
    for system in COMPARED:
        covered = [report["intervals"][name]["metrics"] for name in SETTINGS]
        cells = [shares([each[f"{system} {metric}"]["covered"] for metric in METRICS]) for each in covered]
        lines.append(f"| {system.replace(' - ', ' minus ')} | {' | '.join(cells)} |")
    lines += ["", f"| lower bounds by | {' | '.join(f'{units} units' for units in PROMISE_UNITS)} |"]
    lines.append(f"|---|{'---|' * len(PROMISE_UNITS)}")
    for rule in RULES:
        kept = [report["promises"][str(units)][rule] for units in PROMISE_UNITS]
        cells = [shares([each[metric]["kept"] for metric in PROMISED]) for each in kept]
        lines.append(f"| `{rule}` | {' | '.join(cells)} |")
    return lines


def shares(values: list[float]) -> str:
    """As in a cell: .953 · 1.000."""
    return " · ".join(f"{value:.3f}".removeprefix("0") for value in values)


def main() -> None:
    parser = command_parser()
    parser.add_argument("--draws", type=positive_int, default=400, help="simulated pairs of valid and test")
    parser.add_argument("--samples", type=positive_int, default=400, help="resamples for the intervals of a draw")
    options = parser.parse_args()
    if options.draws < 2:
        raise UserError(f"--draws is {options.draws}; expected at least 2")
    from stages.model.device import environment, pick_device

    population = draw(np.random.default_rng(2), np.full(POPULATION // 2, 2))
    report: dict[str, Any] = {"draws": options.draws, "samples": options.samples, "intervals": {}, "promises": {}}
    for name, rows in SETTINGS.items():
        effective = effective_units(np.repeat(np.arange(len(rows)), rows))
        metrics = cover(rows, options.draws, options.samples, population)
        report["intervals"][name] = {"rows": int(rows.sum()), "effective_units": effective, "metrics": metrics}
        print(f"coverage: {name} done", flush=True)
    for units in PROMISE_UNITS:
        report["promises"][str(units)] = keep_promises(units, options.draws, population)
    print("\n".join(table(report)))
    write_json(RESULTS / "coverage.json", report | {"environment": environment(pick_device())})


if __name__ == "__main__":
    run(main)
