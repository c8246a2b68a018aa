"""Judges the texts of a JSON Lines file with the selected model; rows in order, with `label` and `probability`.

python -m stages.predict --file texts.jsonl --out judged.jsonl
"""

import argparse
import json
from pathlib import Path

from stages import run
from stages.model.score import label_scores
from stages.model.selected import load_selected
from stages.predict.read import read_inputs
from stages.report import replacing


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.predict", description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, required=True, help="JSON Lines, each with the key input")
    parser.add_argument("--out", type=Path, required=True, help="JSON Lines: input, label, probability")
    parser.add_argument("--max-tokens-per-batch", type=int, default=4096, help="padding included (default: 4096)")
    arguments = parser.parse_args()
    texts = read_inputs(arguments.file)
    model, prompt, selected = load_selected()
    probability = label_scores(model, prompt, texts, arguments.max_tokens_per_batch, "predict").probability
    with replacing(arguments.out) as file:
        for text, p in zip(texts, probability, strict=True):
            row = {"input": text, "label": bool(p >= selected.threshold), "probability": round(float(p), 6)}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"predict: {len(texts)} texts, {sum(probability >= selected.threshold)} called fraud, in {arguments.out}")


if __name__ == "__main__":
    run(main)
