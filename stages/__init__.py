"""A DVC pipeline that fine-tunes a language model with QLoRA to tell fraud texts from others. One package a stage.

Here stands what every stage shares at its start: the environment, and how an error reaches its user.
"""

import logging
import os
import sys
from collections.abc import Callable

# Nothing that a run does is reported to anybody. (DVC's own switch is core.analytics in .dvc/config.)
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# The tokenizer's threads would fight torch's for the same cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# bitsandbytes tells of an optional kernel at every start, and of a cast at every layer of every int8 pass.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


class UserError(ValueError):
    """Something that the user can mend; the message says what was found, what was expected and what to do."""


def run(main: Callable[[], None]) -> None:
    """Runs a stage; a UserError ends it with its message and status 1, without a traceback."""
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
