"""The memory formula, and what fits on a GPU according to it, before a model is downloaded."""
