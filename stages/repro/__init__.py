"""`dvc repro` that survives a kill at any moment. No stage: it runs them."""
