"""Reads the selected data set, sets bad rows aside, splits it and describes it.

python -m stages.prepare
"""

from pathlib import Path

from stages import params, run
from stages.paths import BASE_MODEL, METRICS, PROCESSED
from stages.prepare.describe import describe
from stages.prepare.read import limit_rejected, read_rows, write_rejected
from stages.prepare.split import drop_train_duplicates, require_both_classes, split_pool
from stages.report import write_json
from stages.text.example import write_examples


def main() -> None:
    chosen = params.load()
    dataset = chosen.dataset
    names = ["pool"] if dataset.pool else ["train", "valid", "test"]
    read = {name: read_rows(Path(getattr(dataset, name))) for name in names}
    rejected = [row for rows in read.values() for row in rows.rejected]
    write_rejected(PROCESSED / "rejected.jsonl", rejected)
    limit_rejected(rejected, sum(rows.total for rows in read.values()), chosen.prepare.max_rejected_fraction)

    splits = {name: rows.examples for name, rows in read.items()}
    if dataset.pool:
        splits = split_pool(splits["pool"], chosen.prepare)
    dropped = 0
    if dataset.drop_train_duplicates:
        splits, dropped = drop_train_duplicates(splits)
    require_both_classes(splits)
    for name, examples in splits.items():
        write_examples(PROCESSED / f"{name}.jsonl", examples)
    summary = describe(splits, BASE_MODEL / "tokenizer.json", rejected=len(rejected), dropped=dropped)
    write_json(METRICS / "data.json", {"dataset": chosen.dataset_name, **summary})
    for name in splits:
        print(f"prepare: {name} {summary[name]['rows']} rows, {summary[name]['fraud_fraction']:.1%} fraud")
    print(f"prepare: {len(rejected)} rows rejected, listed in {PROCESSED / 'rejected.jsonl'}")


if __name__ == "__main__":
    run(main)
