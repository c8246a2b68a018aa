"""What a text is to this project: the labelled example, the prompt around it, and the batch it travels in."""
