"""The selected model on new texts. No stage: for people who use the model."""
