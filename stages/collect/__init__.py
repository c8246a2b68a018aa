"""Collects the model's out-of-fold scores from DVC's experiments. No stage: its files are an input of stage folds."""
