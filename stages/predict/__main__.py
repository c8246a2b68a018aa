"""Judges the texts of a JSON Lines file with the selected model: the rows in order, with `label` and `probability`.

python -m stages.predict --file texts.jsonl --out judged.jsonl
"""

import argparse
import os
import signal
import stat
import sys
from pathlib import Path

from stages import UserError, is_main_process, run
from stages.predict.judge import judge
from stages.predict.output import STANDARD_OUTPUT, open_output
from stages.predict.read import count_rows, is_stream
from stages.text.jsonl import STANDARD_INPUT


class Stopped(BaseException):
    """A signal asked this process to end."""


def main() -> None:
    arguments = read_arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup and & of a shell set it
            signal.signal(number, stop)
    total, out = None, None
    try:
        if is_main_process():
            total = None if is_stream(arguments.file) else count_rows(arguments.file)
            out = open_output(arguments.out)
        judge(arguments.file, out, total, arguments.max_tokens_per_batch)
    except Stopped as stopped:
        if is_main_process():
            how = out.how_to_resume() if out else "Nothing was scored yet"
            print(f"predict: ended by signal {stopped.args[0]}. {how}", file=sys.stderr)
        sys.exit(128 + stopped.args[0])
    except BrokenPipeError:  # whoever read the rows has seen enough
        sys.exit(128 + signal.SIGPIPE)
    except UserError as error:
        raise UserError(f"{error}. {out.how_to_resume()}" if out else str(error)) from error
    finally:
        if out:
            out.close()


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stages.predict", description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, required=True, help="JSON Lines, each with the key input; - reads a pipe")
    parser.add_argument(
        "--out", type=Path, required=True, help="the same rows with label and probability; - writes to standard output"
    )
    parser.add_argument("--max-tokens-per-batch", type=int, default=4096, help="padding included (default: 4096)")
    arguments = parser.parse_args()
    if arguments.max_tokens_per_batch < 1:
        parser.error("--max-tokens-per-batch must be 1 or more")
    if is_same_file(arguments.file, arguments.out):
        parser.error("--out is the file that --file reads: name another")
    return arguments


def is_same_file(file: Path, out: Path) -> bool:
    """Whether both are one regular file, however they are named. A terminal can be both."""
    try:
        one = os.fstat(0) if file == STANDARD_INPUT else file.stat()
        other = os.fstat(1) if out == STANDARD_OUTPUT else out.stat()
    except (OSError, ValueError):  # not there yet, or no name of a file; who opens it will say
        return False
    return os.path.samestat(one, other) and stat.S_ISREG(one.st_mode)


def stop(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends at once
    raise Stopped(number)


if __name__ == "__main__":
    run(main, spread=True)
