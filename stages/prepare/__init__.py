"""Stage prepare: raw JSON Lines to train, valid and test."""
