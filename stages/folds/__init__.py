"""Stage folds: figures of all systems over the whole pool, each row scored by a system trained without its fold."""
