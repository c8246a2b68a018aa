"""One page for the person who decides: is the model better, what does it cost, where does it fail."""
