"""The labelled example, the prompt around its text, and the batches that are trained and scored."""
