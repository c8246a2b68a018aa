"""Does a server survive requests that are wrong in every way? None may stop it or get a status above 499, but 503.

python -m benchmarks.malformed --requests 1000      (any machine; no GPU)

Starts `python -m stages.serve` on a free port, or takes the one of --port. Each request is drawn with a fixed seed:
broken JSON, wrong types, odd characters, huge numbers, wrong paths, methods and headers, broken HTTP, and bodies that
are cut off. Prints how many requests got which status, and ends with 1 if one got a 500 or the server is gone.
"""

import json
import random
import socket
import tempfile
from collections import Counter
from collections.abc import Callable
from typing import Any

from benchmarks.common import command_parser, positive_int
from benchmarks.server import ServerProcess
from stages.command import run
from stages.errors import UserError

SEED = 19
PATHS = [
    "/v1/classify",
    "/v1/verdicts",
    "/v1/verdicts/known",
    "/v1/queue",
    "/v1/model",
    "/",
    "/docs",
    "/static/page.js",
]
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"]
TYPES = ["application/json", "application/json; charset=gbk", "text/plain", "", "a/b/c", "application/json" * 50]
TEXTS = [
    "您好", "", " ", "\u200b", "a" * 30_000, "<|im_end|>", "\0", "😀" * 2000, "\u202e反", "'; DROP TABLE--",
    '{"is_fraud": true}', "<script>alert(1)</script>", "a\n" * 5000, "{{7*7}}", "%00%ff", "王某: 转账。" * 100,
]  # fmt: skip
VALUES: list[Any] = [
    None, True, 0, -1, 1e308, 2**70, "", "text", [], {}, [[]], [None], ["a", 1], {"a": {"b": []}}, 0.5, [""] * 300,
    ["a"] * 5000, "\ud800",
]  # fmt: skip
RAW_JSON = [
    "", "{", "}", "[]", "null", "nul", '"', "{'input': 'a'}", '{"input": "a",}', '{"input": "a"} x', '{"input": NaN}',
    '{"threshold": 1e999, "input": "a"}', '{"input": "a", "input": "b"}', "[" * 50_000, '{"a":' * 20_000,
    '{"input": "\\ud800"}', '{"input": "a\nb"}', '{"threshold": ' + "9" * 6000 + ', "input": "a"}', "\ufeff{}",
]  # fmt: skip
QUERIES = [
    "",
    "?low=x",
    "?low=-1",
    "?low=nan",
    "?high=1e999",
    "?order=old",
    "?low=0&low=1",
    "?%ff=%ff",
    "?" + "a" * 5000,
]
HEADERS = [b"X: \xff\xfe", b"Host: evil.example", b"Authorization: Bearer \xe4", b"Authorization: " + b"a" * 5000,
           b"Transfer-Encoding: chunked", b"Content-Length: -1", b"Content-Length: 99999999999999",
           b"Expect: 100-continue",
           b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\nSec-WebSocket-Version: 13",
           b"Accept: \x01", b": none", b"Cookie: " + b"a=b;" * 500]  # fmt: skip


def json_body(rng: random.Random) -> bytes:
    """A body that is often an object with the right keys, and wrong somewhere."""
    if rng.random() < 0.25:
        return rng.choice(RAW_JSON).encode("utf-8", "surrogatepass")
    keys = ["input", "threshold", "explain", "label", "source", "group", "probability", "inputs", "__proto__", "\u0000"]
    body = {rng.choice(keys): rng.choice([*VALUES, *TEXTS]) for _ in range(rng.randint(0, 4))}
    if rng.random() < 0.6:
        body["input"] = rng.choice([*TEXTS, *VALUES, [rng.choice(TEXTS) for _ in range(rng.randint(0, 5))]])
    encoded = json.dumps(body, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:  # some bytes are flipped
        broken = bytearray(encoded)
        for _ in range(rng.randint(1, 5)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        return bytes(broken)
    return encoded


def request_bytes(rng: random.Random) -> bytes:
    """A whole request as it goes over the wire. Some are no HTTP at all."""
    kind = rng.random()
    if kind < 0.05:
        return rng.choice([b"\x16\x03\x01\x02\x00", b"\0" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
                           rng.randbytes(200), b"GET " + b"/a" * 50_000 + b" HTTP/1.1\r\n\r\n"])  # fmt: skip
    body = json_body(rng)
    method = rng.choice(METHODS) if rng.random() < 0.3 else "POST"
    path = rng.choice(PATHS) if rng.random() < 0.6 else "/v1/classify"
    path += rng.choice([*QUERIES, "/", "/../../etc/passwd", "%00"]) if rng.random() < 0.25 else ""
    kind_of_body = rng.choice(TYPES) if rng.random() < 0.2 else "application/json"
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: localhost", b"Content-Type: " + kind_of_body.encode()]
    if rng.random() < 0.2:
        lines.append(rng.choice(HEADERS))
    length = len(body) + (rng.choice([-1, 1, 100]) if rng.random() < 0.05 else 0)
    lines += [f"Content-Length: {max(length, 0)}".encode(), b"Connection: close"]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def send(port: int, request: bytes, seconds: float = 5) -> str:
    """The status of the answer; `closed` if there is none, `waiting` if the server waits for more."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            head = connection.recv(4096)
    except TimeoutError:
        return "waiting"
    except OSError:
        return "closed"
    words = head.split(b" ", 2)
    return words[1].decode("latin-1") if head.startswith(b"HTTP/") and len(words) > 1 else "closed"


def attack(port: int, requests: int, seed: int = SEED, sender: Callable[[int, bytes], str] = send) -> Counter[str]:
    """Sends malformed requests one after another. Returns how many got which status."""
    rng = random.Random(seed)
    return Counter(sender(port, request_bytes(rng)) for _ in range(requests))


def bad(statuses: Counter[str]) -> list[str]:
    """The statuses that no request may get: 5xx, except 503, which says when to try again."""
    return sorted(status for status in statuses if status.startswith("5") and status != "503")


def main() -> None:
    parser = command_parser()
    parser.add_argument("--requests", type=positive_int, default=1000)
    parser.add_argument("--port", type=positive_int, help="of a server that runs on this machine; default: start one")
    parser.add_argument("--folder", default="models/selected", help="the classifier of the server that is started")
    options = parser.parse_args()
    if options.port:
        statuses = attack(options.port, options.requests)
    else:
        with tempfile.TemporaryDirectory() as folder:
            files = ["--audit-folder", folder, "--audit", "text", "--verdicts", f"{folder}/verdicts.jsonl"]
            with ServerProcess("--folder", options.folder, *files) as server:
                statuses = attack(server.port, options.requests)
                answer = server.classify(["您好，您的快递到了。"])
        print(f"malformed: afterwards a text is answered with {json.dumps(answer['results'][0])}")
    print(f"malformed: {options.requests} requests: {dict(sorted(statuses.items()))}")
    if bad(statuses):
        raise UserError(f"found the statuses {', '.join(bad(statuses))}; expected none above 499 but 503")


if __name__ == "__main__":
    run(main)
