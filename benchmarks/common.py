"""What the benchmarks share: their options, their results folder and their checks. torch is imported where needed."""

import argparse
import importlib.util
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from stages.errors import UserError

RESULTS = Path("results")  # published figures; metrics/ holds what the pipeline itself writes


def command_parser() -> argparse.ArgumentParser:
    """A parser for the module that was started; its docstring is what --help prints first."""
    main = sys.modules["__main__"]
    name = main.__spec__.name.removesuffix(".__main__") if main.__spec__ else main.__file__
    return argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=main.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def positive_int(text: str) -> int:
    """A whole number above 0, as an argparse type."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number above 0")
    return int(text)


def median_rate(rates: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest of the windows' rates, in texts per second."""
    return {
        "samples_per_second": statistics.median(rates),
        "samples_per_second_min": min(rates),
        "samples_per_second_max": max(rates),
    }


def require_gpu_and_base() -> None:
    """Raises UserError if torch can use no GPU, or if models/base is missing or altered."""
    import torch

    from stages.model.provenance import require_whole_base
    from stages.paths import BASE_MODEL

    if not torch.cuda.is_available():
        raise UserError("found no GPU that torch can use; this benchmark measures one: run it on a machine with a GPU")
    require_whole_base(BASE_MODEL)


def require_package(name: str) -> None:
    """Raises UserError if a package that only a benchmark needs is not installed."""
    if importlib.util.find_spec(name) is None:
        raise UserError(f"{name} is not installed; this recipe needs it: pip install {name.replace('_', '-')}")
