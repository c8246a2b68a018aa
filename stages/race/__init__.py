"""Measurements beside the pipeline, no stages of it: recipes raced on a GPU, where memory goes, smaller cards, loss
curves, several processes, and the train stage beside a stock Trainer."""
