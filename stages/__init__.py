"""A DVC pipeline that fine-tunes a language model with QLoRA to classify texts as fraud or not. One package per stage.

This file only sets the environment that all commands share.
"""

import importlib.util
import logging
import os
import sys

__version__ = "0.3.0"

if sys.version_info < (3, 11) or not all(map(importlib.util.find_spec, ("torch", "transformers", "yaml"))):
    print(
        f"error: {sys.executable} (Python {sys.version.split()[0]}) is not this project's, or lacks its packages: run "
        "`make repro`, or `source .venv/bin/activate` before dvc and python (`make install` makes .venv)",
        file=sys.stderr,
    )
    sys.exit(2)  # 1 is what some commands find

# A run reports nothing to anybody. (DVC's own switch is core.analytics in .dvc/config.)
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# The tokenizer's threads would fight torch's for the same cores.
TOKENIZERS_CHOSEN = "TOKENIZERS_PARALLELISM" in os.environ  # by the user
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# bitsandbytes logs an optional kernel at every start, and a cast at every layer of every int8 pass.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
