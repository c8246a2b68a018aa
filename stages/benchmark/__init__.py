"""Stage benchmark: what loading a model costs under each quantization. No other stage depends on its timings."""
