"""The memory formula, and what fits on a GPU by it before a model is downloaded."""
