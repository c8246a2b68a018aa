"""Stage evaluate: the selected model on test, compared with its base model and a classical baseline."""
