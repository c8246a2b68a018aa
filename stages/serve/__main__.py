"""Serves the classifier over HTTP: an API for programs, a page for people.

python -m stages.serve                        http://127.0.0.1:8000, the classifier in models/selected
python -m stages.serve --forget text.txt      deletes a text from the audit log and the verdicts
"""

import argparse
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from stages.command import run
from stages.data.lines import STANDARD_INPUT
from stages.errors import UserError
from stages.serve.forget import forget
from stages.serve.review import require_classified
from stages.serve.settings import Settings

VARIABLE = "SERVE_TOKEN"  # of the environment
LEAST_TOKEN = 16  # characters
KEEP_ALIVE_SECONDS = 75  # longer than proxies keep idle connections, so that none sends into a closed one
SWITCH_SECONDS = 0.001  # between the thread that answers and the one that scores; 0.005 by default
DEFAULTS = Settings()


def main() -> None:
    arguments = read_arguments()
    settings = settings_of(arguments)
    if arguments.forget:
        report_forgotten(arguments.forget, settings)
    else:
        serve(settings)


def read_arguments() -> argparse.Namespace:
    form = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m stages.serve", description=(__doc__ or "").splitlines()[0], formatter_class=form
    )
    parser.add_argument(
        "--folder", type=Path, default=DEFAULTS.folder, help="models/selected, or an export: classifier or onnx"
    )
    parser.add_argument("--host", default=DEFAULTS.host, help="address to listen on; 0.0.0.0 lets other machines in")
    parser.add_argument("--port", type=int, default=DEFAULTS.port, help="0 takes a free one")
    parser.add_argument(
        "--name", action="append", default=[], help="a further name by which clients address this server; repeatable"
    )
    parser.add_argument(
        "--token-file", type=Path, help=f"file with the token that requests have to bring; or set {VARIABLE}"
    )
    parser.add_argument(
        "--max-body-bytes", type=positive, default=DEFAULTS.max_body_bytes, help="of a request, else 413"
    )
    parser.add_argument("--max-texts", type=positive, default=DEFAULTS.max_texts, help="of a request, else 413")
    parser.add_argument("--max-characters", type=positive, default=DEFAULTS.max_characters, help="of a text, else 413")
    parser.add_argument(
        "--max-waiting", type=positive, default=DEFAULTS.max_waiting, help="texts in the queue, else 503"
    )
    parser.add_argument(
        "--batch-tokens", type=positive, default=DEFAULTS.batch_tokens, help="padded tokens in a batch, estimated"
    )
    parser.add_argument(
        "--batch-wait", type=float, default=DEFAULTS.batch_wait, help="seconds that a lone text waits for others"
    )
    parser.add_argument(
        "--timeout", type=float, default=DEFAULTS.timeout, help="seconds until a request is given up, with 503"
    )
    parser.add_argument(
        "--profile",
        choices=("plain", "speed"),
        default=DEFAULTS.profile,
        help="speed = compiled layers and CUDA graphs, for models/selected on a GPU: half a minute to start",
    )
    parser.add_argument("--client-rate", type=float, help="texts a second from one address, else 429")
    add_kept(parser)
    return parser.parse_args()


def add_kept(parser: argparse.ArgumentParser) -> None:
    """Adds the options of what the server keeps."""
    parser.add_argument(
        "--audit", choices=["hash", "text", "off"], default=DEFAULTS.audit, help="what the log has of a text"
    )
    parser.add_argument("--audit-folder", type=Path, default=DEFAULTS.audit_folder, help="of the log")
    parser.add_argument(
        "--audit-bytes", type=positive, default=DEFAULTS.audit_bytes, help="size of one file of the log"
    )
    parser.add_argument(
        "--retention-days", type=positive, default=DEFAULTS.retention_days, help="until lines of the log are deleted"
    )
    parser.add_argument(
        "--verdicts", type=Path, default=DEFAULTS.verdicts, help="where people's verdicts go, a file of the pool"
    )
    parser.add_argument("--no-review", action="store_true", help="no queue and no verdicts")
    parser.add_argument(
        "--queue", type=Path, action="append", default=[], help="a file that predict wrote, to judge; repeatable"
    )
    parser.add_argument(
        "--forget", type=Path, metavar="FILE", help="delete the text in this file (- for standard input), and end"
    )


def positive(value: str) -> int:
    if int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value}: expected 1 or more")
    return int(value)


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings of a command line. Raises UserError for a weak token or a missing file."""
    given = {key: value for key, value in vars(arguments).items() if hasattr(DEFAULTS, key)}
    for path in arguments.queue:
        if not path.is_file():
            raise UserError(
                f"--queue {path}: there is no such file; expected one that `python -m stages.predict` wrote"
            )
        require_classified(path)
    given |= {
        "names": tuple(arguments.name),
        "token": read_token(arguments.token_file),
        "queues": tuple(arguments.queue),
        "verdicts": None if arguments.no_review else arguments.verdicts,
    }
    return Settings(**given)


def read_token(path: Path | None) -> str | None:
    """The token in a file, or in the environment; None without any. Raises UserError for one that is easy to guess."""
    try:
        token = path.read_text(encoding="utf-8").strip() if path else os.environ.get(VARIABLE)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--token-file {path}: {error}") from None
    if token is None:
        return None
    if len(token) < LEAST_TOKEN or not token.isascii():
        raise UserError(
            f"the token in {path or VARIABLE} has {len(token)} characters; expected {LEAST_TOKEN} or more, ASCII "
            "alone: `openssl rand -hex 32` makes one"
        )
    return token


def report_forgotten(path: Path, settings: Settings) -> None:
    """Deletes a text's traces, and prints how many rows of which file are gone."""
    try:
        text = sys.stdin.read() if path == STANDARD_INPUT else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--forget {path}: {error}; expected a file with one text in UTF-8") from None
    if not text.strip():
        raise UserError(f"--forget {path}: the file is blank; expected one text")
    verdicts = settings.verdicts or DEFAULTS.verdicts
    found = forget(text, settings.audit_folder, [*([verdicts] if verdicts else []), *settings.queues])
    for file, rows in found.items():
        print(f"serve: {file}: {rows} rows deleted")
    print(f"serve: {sum(found.values())} rows deleted. Data sets, DVC's cache and git's history were not searched")


def serve(settings: Settings) -> None:
    """Listens until SIGTERM or Ctrl-C, and answers what it took before it ends."""
    try:
        import uvicorn

        from stages.serve.app import Server, create_app
    except ModuleNotFoundError as error:
        raise UserError(f"{error}: run `pip install -r requirements-serve.txt -c constraints.txt`") from None
    from stages.api import load
    from stages.serve.identity import identity
    from stages.serve.operating import operating_points

    folder = settings.folder
    server = Server(
        settings, lambda: load(folder, settings.profile), lambda: identity(folder), lambda: operating_points(folder)
    )
    logging.basicConfig(level=logging.WARNING, format="serve: %(levelname)s: %(message)s")
    sys.setswitchinterval(SWITCH_SECONDS)
    listening = listen(settings)
    config = uvicorn.Config(
        create_app(server),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        limit_concurrency=settings.max_connections,
        timeout_graceful_shutdown=int(settings.timeout) + 5,
    )
    running = uvicorn.Server(config)

    def stop() -> None:
        running.should_exit = True

    server.worker.on_failure = stop
    server.worker.on_ready = lambda: print("serve: ready", flush=True)
    announce(settings, listening.getsockname()[1])
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn ends, and then sends itself the signal once more
        signal.signal(number, lambda *_: None)
    running.run(sockets=[listening])
    if server.worker.failed:
        raise server.worker.failed
    print("serve: ended; all requests that were taken are answered", flush=True)


def listen(settings: Settings) -> socket.socket:
    """A socket at the server's address. Raises UserError if it can't be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"can't listen on {settings.host}, port {settings.port}: {error}; choose another with --host and --port"
        ) from None


def announce(settings: Settings, port: int) -> None:
    """Prints where the server is, and what is open to whom."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    print(f"serve: http://{host}:{port} (API: /docs), loading {settings.folder}", flush=True)
    if settings.open_to_others and settings.token is None:
        print(
            f"serve: WARNING: {settings.host} is open to other machines and no token is set: use --token-file or "
            f"{VARIABLE}",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    run(main)
