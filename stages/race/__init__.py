"""The same adapter trained by other people's recipes and by ours: no stage, for a GPU."""
