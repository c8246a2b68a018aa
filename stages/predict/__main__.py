"""Classifies the texts of a JSON Lines file: writes the rows in order, with `label` and `probability`.

python -m stages.predict --file texts.jsonl --out classified.jsonl
"""

import argparse
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from stages.command import run
from stages.data.lines import STANDARD_INPUT
from stages.distributed import is_main_process
from stages.errors import UserError
from stages.predict.classify import classify
from stages.predict.output import STANDARD_OUTPUT, Output, open_output
from stages.predict.read import count_rows, is_stream


def main() -> None:
    arguments = read_arguments()
    total, out = None, None
    end_on_signals(lambda: out)
    try:
        if is_main_process():
            total = None if is_stream(arguments.file) else count_rows(arguments.file)
            out = open_output(arguments.out)
        classify(arguments.file, out, total, arguments.max_tokens_per_batch)
    except BrokenPipeError:  # the reader of the rows has closed the pipe
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
    parser.add_argument(
        "--max-tokens-per-batch", type=int, help="padding included (default: as when the threshold was chosen)"
    )
    arguments = parser.parse_args()
    if arguments.max_tokens_per_batch is not None and arguments.max_tokens_per_batch < 1:
        parser.error("--max-tokens-per-batch must be 1 or more")
    if is_same_file(arguments.file, arguments.out):
        parser.error("--out is the file that --file reads: name another")
    return arguments


def is_same_file(file: Path, out: Path) -> bool:
    """Whether both are the same regular file, by whatever name. A terminal can be both."""
    try:
        one = os.fstat(0) if file == STANDARD_INPUT else file.stat()
        other = os.fstat(1) if out == STANDARD_OUTPUT else out.stat()
    except (OSError, ValueError):  # missing, or no file name: opening it raises the error
        return False
    return os.path.samestat(one, other) and stat.S_ISREG(one.st_mode)


def end_on_signals(output: Callable[[], Output | None]) -> None:
    """Makes SIGINT and SIGTERM end this process at once with a message, whatever it waits for.

    A handler in Python runs only when the main thread returns from a matrix product, or from a wait for another
    process, which may be gone. The files are whole at any moment, so nothing has to be finished.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(reading, True)
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup sets that, and so does & in a script
            signal.signal(number, lambda *_: None)
    threading.Thread(target=end, args=(reading, output), daemon=True).start()


def end(reading: int, output: Callable[[], Output | None]) -> None:
    """Waits for the number of a signal in a pipe, and ends the process with the status that shells expect."""
    number = os.read(reading, 1)[0]
    out = output()
    if is_main_process():
        how = out.how_to_resume() if out else "Nothing was scored yet"
        print(f"\npredict: ended by signal {number}. {how}", file=sys.stderr, flush=True)
    if out:
        out.remove_empty()
    os._exit(128 + number)


if __name__ == "__main__":
    run(main, distributed=True)
