"""Whether this machine comes to the committed figures. No stage: it runs them."""
