"""Serves the classifier over HTTP, with a page for people and an audit log."""
