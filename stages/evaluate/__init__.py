"""Stage evaluate: what the selected model is worth on test, beside its own base and a classical baseline."""
