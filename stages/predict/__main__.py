"""Judges the texts of a JSON Lines file with the selected model: the rows in order, with `label` and `probability`.

python -m stages.predict --file texts.jsonl --out judged.jsonl
"""

import argparse
import json
from pathlib import Path

from stages import run
from stages.model.adapter import merge_unquantized
from stages.model.score import label_scores
from stages.model.selected import load_selected
from stages.predict.read import read_rows
from stages.report import replacing


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.predict", description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, required=True, help="JSON Lines, each with the key input")
    parser.add_argument("--out", type=Path, required=True, help="the same rows with label and probability")
    parser.add_argument("--max-tokens-per-batch", type=int, default=4096, help="padding included (default: 4096)")
    arguments = parser.parse_args()
    if arguments.out.is_dir() or arguments.max_tokens_per_batch < 1:
        parser.error("--out must name a file, and --max-tokens-per-batch be 1 or more")
    rows = read_rows(arguments.file)
    model, prompt, selected = load_selected()
    merge_unquantized(model)
    texts = [selected.as_read(row["input"]) for row in rows]
    scores = label_scores(model, prompt, texts, arguments.max_tokens_per_batch, "predict")
    probability = selected.probability(scores.log_odds)
    with replacing(arguments.out) as file:
        for row, p in zip(rows, probability, strict=True):
            judged = row | {"label": bool(p >= selected.threshold), "probability": round(float(p), 6)}
            file.write(json.dumps(judged, ensure_ascii=False) + "\n")
    print(f"predict: {len(texts)} texts, {sum(probability >= selected.threshold)} called fraud, in {arguments.out}")


if __name__ == "__main__":
    run(main, spread=True)
