"""Stage benchmark: what loading a model costs under each quantization. A leaf: nothing depends on a timing."""
