"""Classifies texts: writes the rows of a file in order, with `label`, `probability` and `log_odds`.

python -m stages.predict --text "您好，您的快递到了。"
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
from stages.predict.convert import converter
from stages.predict.formats import Format, format_of
from stages.predict.output import STANDARD_OUTPUT, Output, open_output
from stages.predict.read import ALWAYS, SOMETIMES, count_rows, is_stream
from stages.predict.source import TEXT_OPTION, Source


def main() -> None:
    arguments = read_arguments()
    source = source_of(arguments)
    total, out = None, None
    end_on_signals(lambda: out)
    try:
        if is_main_process():
            convert = converter(arguments.out, source, arguments.explain)
            total = None if is_stream(source) else count_rows(source)
            out = open_output(arguments.out, convert)
        classify(source, out, total, arguments.max_tokens_per_batch, arguments.explain, arguments.profile)
    except BrokenPipeError:  # the reader of the rows has closed the pipe
        sys.exit(128 + signal.SIGPIPE)
    except UserError as error:
        kept = out.how_to_resume() if out else ""
        raise UserError(f"{error}. {kept}" if kept else str(error)) from error
    finally:
        if out:
            out.close()


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stages.predict", description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--text", action="append", metavar="TEXT", help="a text to classify; may be repeated")
    what.add_argument(
        "--file", type=Path, help="JSON Lines; by its ending CSV, TSV (plain or .gz) or Parquet; - reads a pipe"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="the same rows with the verdict, in the format of its ending; - writes JSON Lines to standard output "
        "(default with --text)",
    )
    parser.add_argument(
        "--text-column", default="input", metavar="NAME", help="key or column of the text (%(default)s)"
    )
    parser.add_argument("--explain", action="store_true", help="adds what each sentence did to the score")
    parser.add_argument(
        "--max-tokens-per-batch", type=int, help="padding included (default: as when the threshold was chosen)"
    )
    parser.add_argument(
        "--profile",
        choices=("plain", "speed"),
        default="plain",
        help="speed = compiled layers and CUDA graphs, on a GPU: half a minute to start, and scores move by rounding",
    )
    arguments = parser.parse_args()
    if arguments.max_tokens_per_batch is not None and arguments.max_tokens_per_batch < 1:
        parser.error("--max-tokens-per-batch must be 1 or more")
    if arguments.text_column in (*ALWAYS, *SOMETIMES):  # which the verdict would replace
        parser.error(f"--text-column {arguments.text_column}: the verdict has a key of that name: rename the column")
    if arguments.file and not arguments.out:
        parser.error("--file needs --out, the name of a file or -")
    if arguments.file and is_same_file(arguments.file, arguments.out):
        parser.error("--out is the file that --file reads: name another")
    arguments.out = arguments.out or STANDARD_OUTPUT
    return arguments


def source_of(arguments: argparse.Namespace) -> Source:
    """What the arguments name."""
    if arguments.text:
        return Source(TEXT_OPTION, arguments.text_column, tuple(arguments.text))
    both = {format_of(arguments.file), format_of(arguments.out)} == {Format.PARQUET}
    return Source(arguments.file, arguments.text_column, text_only=both)


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
        how = (out.how_to_resume() if out else "") or "Nothing was scored yet"
        print(f"\npredict: ended by signal {number}. {how}", file=sys.stderr, flush=True)
    if out:
        out.remove_empty()
    os._exit(128 + number)


if __name__ == "__main__":
    run(main, distributed=True)
