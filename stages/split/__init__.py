"""Writes a manifest: the split and the fold of each row of a pool. No stage: its file is an input of stage prepare."""
