"""Statistics of a result over training seeds. No stage: it reads DVC's experiments."""
