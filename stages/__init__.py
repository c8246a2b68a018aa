"""A DVC pipeline that fine-tunes a language model with QLoRA to tell fraud texts from others. One package a stage."""

import os

# Nothing that a run does is reported to anybody. (DVC's own switch is core.analytics in .dvc/config.)
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# The tokenizer's threads would fight torch's for the same cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
