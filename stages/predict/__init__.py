"""Classifies new texts with the selected model. It is a command for users and no stage."""
