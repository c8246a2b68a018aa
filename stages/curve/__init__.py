"""The learning curve: each system by the number of texts that it learns from. No stage: it reads DVC's experiments."""
