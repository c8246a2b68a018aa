"""Stage select: chooses the checkpoint and the decision threshold on valid."""
