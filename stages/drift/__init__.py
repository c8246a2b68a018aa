"""Compares new texts, without labels, with those that the classifier was trained and its threshold chosen on."""
