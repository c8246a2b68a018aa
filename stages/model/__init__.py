"""The base model under a method, adapters on it, and the score of a text."""
