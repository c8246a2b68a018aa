"""Scores train, valid, test and further sets with a logistic regression on hidden states of the frozen base model, and
by the base model itself (zero-shot), from the same passes.

The states are averages over a text's tokens in the model's prompt. Layer and regularization are chosen by folds of
train. The probe's log-odds of train are out of fold.

python -m stages.probe
"""

import dataclasses
import time

import numpy as np

from stages import params
from stages.artifacts import replacing_folder, write_json
from stages.classifier.probe import write_probe
from stages.command import run
from stages.cross_validation import labels_and_units
from stages.log_odds import write_log_odds
from stages.model.device import environment, pick_device
from stages.model.fsdp import shard_layers
from stages.model.hidden import layers_to_keep, text_states
from stages.model.load import load_base, load_tokenizer
from stages.model.provenance import require_whole_base
from stages.model.scoring import require_finite
from stages.out_of_fold import write_scores
from stages.params import Params
from stages.paths import (
    BASE_MODEL,
    FOLD_SPLITS,
    FURTHER,
    PROBE,
    PROBE_FIGURES,
    PROCESSED,
    PROMPT_FILE,
    ZERO_SHOT,
)
from stages.probe.fit import fit_probe
from stages.probe.out_of_fold import score_out_of_fold
from stages.text.example import Example, read_examples
from stages.text.prompt import build_prompt

SPLITS = ("train", "valid", "test")


def main() -> None:
    chosen = params.load()
    sets = read_sets(chosen)
    start = time.perf_counter()
    require_whole_base(BASE_MODEL)
    model = shard_layers(load_base(chosen.method, BASE_MODEL), chosen.method)
    prompt = build_prompt(load_tokenizer(BASE_MODEL), **dataclasses.asdict(chosen.prompt))
    layers = layers_to_keep(model)
    passes = {
        name: text_states(model, prompt, texts_of(rows), layers, chosen.evaluate.max_tokens_per_batch, title(name))
        for name, rows in sets.items()
    }
    states = {name: of_set.states for name, of_set in passes.items()}
    for name, rows in sets.items():
        sources = [example.source for example in rows]
        require_finite(states[name].sum(axis=(1, 2)), sources)
        require_finite(passes[name].log_odds, sources)
    fitted = fit_probe(states["train"], layers, *labels_and_units(sets["train"]), chosen.prepare.seed)
    place = layers.index(fitted.probe.layer)
    scores = {name: fitted.probe.log_odds(of_set[:, place]) for name, of_set in states.items() if name != "train"}
    scores["train"] = fitted.out_of_fold
    with replacing_folder(PROBE) as folder:
        for name in sets:
            write_log_odds(folder / f"{name}.csv", scores[name])
            write_log_odds(folder / ZERO_SHOT.name / f"{name}.csv", passes[name].log_odds)
        if FOLD_SPLITS.is_file():
            pool = [row for name in SPLITS for row in sets[name]]
            of_pool = np.concatenate([states[name] for name in SPLITS])
            out_of_fold = score_out_of_fold(pool, of_pool, layers, chosen.prepare.seed)
            write_scores(folder / "folds.csv", (row.source for row in pool), out_of_fold)
        write_probe(folder, fitted.probe)
        write_json(folder / PROMPT_FILE, prompt.rendered)
    measured = {"seconds": time.perf_counter() - start, "rows": sum(map(len, sets.values()))}
    write_json(PROBE_FIGURES, fitted.chosen | {"measured": measured, "environment": environment(pick_device())})
    print_choice(fitted.chosen)


def read_sets(chosen: Params) -> dict[str, list[Example]]:
    """The rows of the three splits and of the further sets, by name."""
    sets = {name: read_examples(PROCESSED / f"{name}.jsonl") for name in SPLITS}
    return sets | {name: read_examples(FURTHER / f"{name}.jsonl") for name in sorted(chosen.evaluate.further)}


def texts_of(rows: list[Example]) -> list[str]:
    return [row.input for row in rows]


def title(name: str) -> str:
    return f"{name}, frozen base"


def print_choice(chosen: dict) -> None:
    """Prints which probe was chosen, and whether a wider grid might hold a better one."""
    found = chosen["average_precision_cv"]
    if found is None:
        print(f"probe: layer {chosen['layer']}, not chosen: train has too few units for folds")
        return
    print(
        f"probe: layer {chosen['layer']}, C {chosen['C']:g}, average precision {found:.3f} in cross-validation on train"
    )
    if chosen["at_edge_of_grid"]:
        print(f"probe: C {chosen['C']:g} is at the edge of its grid: a wider one may do better")


if __name__ == "__main__":
    run(main, distributed=True, options=False)
