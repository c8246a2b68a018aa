"""Saves a model quantized once, so that later loads read a third of the bytes and quantize nothing.

python -m stages.benchmark.prequantize METHOD FOLDER   (the benchmark stage calls it)
"""

import subprocess
import sys
from pathlib import Path

from stages import params, run
from stages.model.load import load_base


def prequantize_apart(method: str, folder: Path) -> None:
    """Quantizes and saves in a new process, whose memory goes with it."""
    print(f"benchmark: saving {method} quantized", flush=True)
    subprocess.run([sys.executable, "-m", __name__, method, str(folder)], check=True)


def main() -> None:
    name, folder = sys.argv[1:]
    load_base(params.load().methods[name]).save_pretrained(folder)


if __name__ == "__main__":
    run(main)
