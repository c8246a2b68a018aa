"""Paths of the stages' inputs and outputs, relative to the project's root. dvc.yaml names the same paths."""

from pathlib import Path

BASE_MODEL = Path("models/base")
CHECKPOINTS = Path("models/checkpoints")
VALID_SCORES = "valid_scores.csv"  # in each checkpoint
PROMPT_FILE = "prompt.json"  # the prompt as text, as training used it (beside the checkpoints) or the probe
SELECTED = Path("models/selected")
PROCESSED = Path("data/processed")
FURTHER = PROCESSED / "further"
BASELINE = PROCESSED / "baseline"
FOLD_SPLITS = PROCESSED / "folds.csv"  # the split of each row of a pool when each fold is test
PROBE = Path("data/probe")
PROBE_FIGURES = Path("models/probe.json")  # report copies both to metrics/
TRAIN_FIGURES = Path("models/train.json")
ZERO_SHOT = PROBE / "zero_shot"
FOLD_SCORES = Path("data/folds")  # out-of-fold scores of the model, an input that `make folds` writes
PREDICTIONS = Path("data/predictions")
METRICS = Path("metrics")
PLOTS = METRICS / "plots"
REPORT = Path("report/index.html")
RUNS = Path("runs")  # working files, tracked by neither git nor DVC
LOCK = Path("dvc.lock")
LOCK_COPY = RUNS / "dvc.lock"  # the last whole one
