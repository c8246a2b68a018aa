"""Stage train: adapters on the frozen, quantized base model."""
