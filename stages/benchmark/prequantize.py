"""Saves the base model quantized, so that later loads read fewer bytes and quantize nothing.

python -m stages.benchmark.prequantize METHOD FOLDER   (the benchmark stage calls it)
"""

import argparse

from stages import params
from stages.command import run
from stages.model.load import load_base


def main() -> None:
    parser = argparse.ArgumentParser("python -m stages.benchmark.prequantize", description=__doc__.partition("\n")[0])
    parser.add_argument("method", metavar="METHOD", help="a method's name in params.yaml")
    parser.add_argument("folder", metavar="FOLDER", help="the folder to write")
    options = parser.parse_args()
    load_base(params.load().methods[options.method]).save_pretrained(options.folder)


if __name__ == "__main__":
    run(main)
