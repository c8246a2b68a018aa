"""The trained classifier: an adapter with its prompt, temperature and threshold."""
