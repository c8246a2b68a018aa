"""Chooses a checkpoint, a temperature and a threshold on valid and writes the model that is evaluated and used.

python -m stages.select
"""

import dataclasses

from stages import params, run
from stages.metrics import calibrated, choose_threshold, fit_temperature, metrics_at_fraction, score_metrics
from stages.model.identity import read_identity
from stages.model.selected import Selected, write_selected
from stages.paths import BASE_MODEL, CHECKPOINTS, METRICS, PLOTS, SELECTED
from stages.report import read_csv, write_json
from stages.select.checkpoint import best_step, read_valid_scores


def main() -> None:
    chosen = params.load()
    step = best_step(read_csv(PLOTS / "valid.csv"), chosen.select.metric)
    checkpoint = CHECKPOINTS / f"checkpoint-{step}"
    y_true, scores = read_valid_scores(checkpoint)
    temperature = fit_temperature(y_true, scores.log_odds)
    probability = calibrated(scores.log_odds, temperature)
    threshold = choose_threshold(y_true, probability, chosen.select)
    valid = {"loss": scores.loss(y_true), **score_metrics(y_true, probability, threshold)}
    promised = metrics_at_fraction(y_true, probability, threshold, chosen.select.fraud_fraction)
    selected = Selected(
        step=step,
        threshold=threshold,
        temperature=temperature,
        speakers_removed=chosen.removes_speakers,
        valid=valid,
        promised=promised,
        select=dataclasses.asdict(chosen.select),
        method_name=chosen.method_name,
        method=dataclasses.asdict(chosen.method),
        prompt=dataclasses.asdict(chosen.prompt),
        base=read_identity(BASE_MODEL),
        dataset_name=chosen.dataset_name,
    )
    write_selected(SELECTED, checkpoint, selected)
    report = {"step": step, "threshold": threshold, "temperature": temperature, "valid": valid, "promised": promised}
    write_json(METRICS / "select.json", report)
    print(f"select: checkpoint-{step}, threshold {threshold:.4f}, valid F1 {valid['f1']:.3f}")


if __name__ == "__main__":
    run(main)
