"""Compares the systems out of fold, over all rows of the pool. It is for reporting: the rows hold test.

The cheap systems always take part. The model does if `make folds` has scored this data.

python -m stages.folds
"""

from typing import Any

from stages import params
from stages.artifacts import write_json
from stages.command import run
from stages.folds.compare import compare_out_of_fold
from stages.folds.scores import Collected, changed_params, data_hash, read_collected
from stages.out_of_fold import read_scores
from stages.params import Params
from stages.paths import BASELINE, FOLD_SCORES, METRICS, PROBE, PROCESSED
from stages.text.example import Example, read_examples

NO_POOL = "none: the data set has splits of its own, or is too small for folds"
ONE_FOLD = "none: this run holds out one fold alone"
FEWER_ROWS = "none: the systems of this run learn from prepare.train_rows alone"


def main() -> None:
    chosen = params.load()
    splits = {name: read_examples(PROCESSED / f"{name}.jsonl") for name in ("train", "valid", "test")}
    pool = [example for rows in splits.values() for example in rows]
    prepare = chosen.prepare
    if prepare.fold is not None or prepare.train_rows is not None or min(example.fold for example in pool) < 0:
        reason = ONE_FOLD if prepare.fold is not None else FEWER_ROWS if prepare.train_rows is not None else NO_POOL
        report: dict[str, Any] = {"pool": reason}
        write_json(METRICS / "folds.json", report)
        print(f"folds: pool: {report['pool']}")
        return
    sources = [example.source for example in pool]
    scores = {
        name: read_scores(folder / "folds.csv", sources)
        for name, folder in (("baseline", BASELINE), ("probe", PROBE))
        if (folder / "folds.csv").is_file()
    }
    if not scores:
        write_json(METRICS / "folds.json", {"pool": NO_POOL})
        print("folds: no out-of-fold scores: the pool is too small for folds")
        return
    collected = usable(pool)
    if collected:
        scores["model"] = collected.calibrated(sources)
    train = {example.source for example in splits["train"]}
    report = compare_out_of_fold(pool, scores, train, chosen)
    if collected:
        report["collected"] = describe_collected(collected, chosen)
    write_json(METRICS / "folds.json", report)
    print_report(report)


def usable(pool: list[Example]) -> Collected | None:
    """The model's scores if they are of this pool. Prints why they are left out otherwise."""
    collected = read_collected(FOLD_SCORES)
    if collected is None:
        print(f"folds: model and combined are left out: {FOLD_SCORES} holds no scores; `make folds` writes them")
    elif collected.record["data"] != data_hash(pool):
        print(
            f"folds: model and combined are left out: {FOLD_SCORES} holds scores of other rows "
            f"(datasets.{collected.record['dataset']}, {collected.record['date']}); `make folds` renews them"
        )
        collected = None
    return collected


def describe_collected(collected: Collected, chosen: Params) -> dict[str, Any]:
    """When and where the model's scores were made, and whether with the present params. Warns if not."""
    changed = changed_params(collected, chosen)
    if changed:
        print(
            f"folds: WARNING: the model's scores were made with other params ({', '.join(changed)}); "
            "`make folds` renews them"
        )
    return {key: collected.record[key] for key in ("date", "environment")} | {"with_present_params": not changed}


def print_report(report: dict[str, Any]) -> None:
    """Prints average precision of each system and how far trained systems are ahead of the best cheap one."""
    size = report["size"]
    print(f"folds: {size['rows']} rows in {size['units']} units, each scored by systems trained without its fold")
    for name in ("baseline", "probe", "model", "combined", "combined_cheap"):
        if name in report:
            print(f"folds: {name}: average precision {with_bounds(report[name])}, f1 {report[name]['f1']:.3f}")
    for name, less in report["ahead"].items():
        print(f"folds: {name} minus {report['best_cheap']['name']}: average precision {with_bounds(less)}")


def with_bounds(block: dict[str, float]) -> str:
    low, high = block.get("average_precision_low"), block.get("average_precision_high")
    return f"{block['average_precision']:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    run(main, options=False)
