"""Stage select: the checkpoint and the decision threshold, chosen on valid alone."""
