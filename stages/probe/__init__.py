"""Stage probe: a logistic regression on hidden states of the frozen base model."""
