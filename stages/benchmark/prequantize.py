"""Saves the base model quantized, so that later loads read fewer bytes and quantize nothing.

python -m stages.benchmark.prequantize METHOD FOLDER   (the benchmark stage calls it)
"""

import sys

from stages import params
from stages.command import run
from stages.model.load import load_base


def main() -> None:
    name, folder = sys.argv[1:]
    load_base(params.load().methods[name]).save_pretrained(folder)


if __name__ == "__main__":
    run(main)
