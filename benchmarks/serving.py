"""How many texts a second does the server take, and how long do they wait, beside offline scoring?

python -m benchmarks.serving NAME [--folder exports/onnx]      (any machine; a GPU where the model wants one)

First the classifier scores a pool's texts offline, in a process of its own, as predict does after loading. Then the
server gets requests at fixed rates, shares of that rate, with random gaps and a fixed seed. A request is sent when its
time has come, whether earlier ones are answered or not, and its latency counts from that time. Client and server share
the machine. Writes NAME's figures into results/serving.json, beside those of other names.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, command_parser, positive_int
from benchmarks.server import ServerProcess
from stages.artifacts import read_json, write_json
from stages.command import run
from stages.data.jsonl import read_jsonl
from stages.errors import UserError

WARM_UP = (1.25, 0.5)
RATES = "0.25,0.5,0.75,0.9,1,1.25"
SEED = 19
MOST_CONNECTIONS = 400
HEAD = "POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
OFFLINE = "--offline"  # how this module starts itself to measure that
FILE = RESULTS / "serving.json"


@dataclass
class Answers:
    """Status and seconds of each request of a rate, and when the last answer came."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    ended: float = 0.0


class Client:
    """Keeps connections open and sends requests over them, one at a time over each."""

    def __init__(self, port: int):
        self.port = port
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.slots = asyncio.Semaphore(MOST_CONNECTIONS)

    async def classify(self, body: bytes) -> int:
        """The status of the answer, 0 if there is none."""
        head = f"{HEAD}\r\nContent-Length: {len(body)}\r\n\r\n"
        async with self.slots:
            try:
                reader, writer = self.free.pop() if self.free else await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(head.encode() + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                lines = answer.lower().split(b"\r\n")
                length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
                await reader.readexactly(length)
            except (OSError, asyncio.IncompleteReadError):
                return 0
            if b"connection: close" in lines:
                writer.close()
            else:
                self.free.append((reader, writer))
        return int(answer.split(b" ", 2)[1])


async def offer(port: int, bodies: Sequence[bytes], rate: float, seconds: float) -> tuple[Answers, float]:
    """Sends requests at a rate. Returns their answers, and the seconds from the first request to the last answer.

    Args:
        port: of the server.
        bodies: of requests, taken in turn.
        rate: requests a second, with exponential gaps.
        seconds: how long requests are sent.
    """
    client, answers, rng = Client(port), Answers(), random.Random(SEED)
    begun = time.perf_counter()

    async def one(body: bytes, due: float) -> None:
        answers.statuses[await client.classify(body)] += 1
        answers.ended = time.perf_counter()
        answers.seconds.append(answers.ended - due)

    tasks, due, number = set(), begun, 0
    while due < begun + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.add(asyncio.create_task(one(bodies[number % len(bodies)], due)))
        number += 1
        due += rng.expovariate(rate)
    await asyncio.gather(*tasks)
    return answers, answers.ended - begun


def measure_rate(server: ServerProcess, texts: list[str], share: float, offline: float, options: Any) -> dict[str, Any]:
    """The figures of one rate.

    Args:
        server: it runs.
        texts: to send, in their order.
        share: of the offline rate.
        offline: texts a second.
        options: of the command line.
    """
    size = options.texts_per_request
    parts = [texts[start : start + size] for start in range(0, len(texts) - size + 1, size)]
    bodies = [json.dumps({"input": part[0] if size == 1 else part}).encode() for part in parts]
    before = server.figures()
    answers, seconds = asyncio.run(offer(server.port, bodies, share * offline / size, options.seconds))
    after = server.figures()
    batches = after["serve_batch_seconds_count"] - before["serve_batch_seconds_count"]
    good = answers.statuses[200]
    p50, p99 = np.quantile(answers.seconds, [0.5, 0.99]).tolist()
    found = {
        "offered_texts_per_second": share * offline,
        "texts_per_second": good * size / seconds,
        "requests": len(answers.seconds),
        "refused": len(answers.seconds) - good,
        "p50_seconds": p50,
        "p99_seconds": p99,
        "batch_seconds": (after["serve_batch_seconds_sum"] - before["serve_batch_seconds_sum"]) / max(batches, 1),
        "batch_texts": (after["serve_batch_texts_sum"] - before["serve_batch_texts_sum"]) / max(batches, 1),
    }
    print(
        f"serving: {share:.2f} of offline: {json.dumps({key: round(value, 4) for key, value in found.items()})}",
        flush=True,
    )
    unexpected = set(answers.statuses) - {200, 503}
    if unexpected:
        raise UserError(f"answers with the statuses {sorted(unexpected)}; expected 200 and 503 alone")
    return found


def report_offline(folder: Path, texts: list[str], profile: str) -> None:
    """Prints the rate at which this process scores texts, the median of three passes, and what it runs on, as JSON."""
    from stages.api import load
    from stages.model.device import environment, pick_device

    classifier = load(folder, profile)
    classifier.score(texts[: max(1, len(texts) // 8)])
    if profile == "speed":  # the first two passes of a shape of batches compile and capture
        for _ in range(2):
            classifier.score(texts)
    rates = []
    for _ in range(3):
        begun = time.perf_counter()
        classifier.score(texts)
        rates.append(len(texts) / (time.perf_counter() - begun))
    print(json.dumps({"rate": statistics.median(rates), "environment": environment(pick_device())}))


def measure_offline(options: Any) -> dict[str, Any]:
    """What `report_offline` prints in a process of its own, whose memory is free when the server starts."""
    arguments = ["--folder", options.folder, "--pool", options.pool, "--texts", options.texts, OFFLINE]
    arguments += ["--profile", options.profile]
    command = [sys.executable, "-m", "benchmarks.serving", options.name, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def read_options() -> argparse.Namespace:
    parser = command_parser()
    parser.add_argument("name", metavar="NAME", help="under which the figures are kept, such as model-h100")
    parser.add_argument("--folder", type=Path, default=Path("models/selected"))
    parser.add_argument("--pool", type=Path, default=Path("data/sample/pool.jsonl"), help="JSON Lines with the texts")
    parser.add_argument("--texts", type=positive_int, default=512, help="of the pool, repeated where it has fewer")
    parser.add_argument("--rates", default=RATES, help="shares of the offline rate, with commas")
    parser.add_argument("--seconds", type=float, default=20, help="of each rate")
    parser.add_argument("--texts-per-request", type=positive_int, default=1)
    parser.add_argument("--profile", choices=("plain", "speed"), default="plain", help="of scoring")
    parser.add_argument("--server", default="", help="further options of the server, in one word: '--batch-wait 0'")
    parser.add_argument(OFFLINE, action="store_true", help="print the offline rate alone")
    return parser.parse_args()


def main() -> None:
    options = read_options()
    pool = [row.values["input"] for row in read_jsonl(options.pool)]
    texts = [pool[number % len(pool)] for number in range(options.texts)]
    if options.offline:
        report_offline(options.folder, texts, options.profile)
        return
    load = os.getloadavg()[0]
    offline = measure_offline(options)
    print(f"serving: offline {offline['rate']:.1f} texts/s on {offline['environment']['device']}", flush=True)
    extra = ["--audit-folder", "runs/benchmark-serve", "--no-review", "--timeout", "60", "--profile", options.profile]
    extra += options.server.split()
    rates = {}
    with ServerProcess("--folder", options.folder, *extra) as server:
        about = server.call("/v1/model")
        server.classify(texts[:64])
        if options.profile == "speed":  # not measured: the first two batches of a shape compile and capture
            for share in WARM_UP:
                measure_rate(server, texts, share, offline["rate"], options)
        for share in map(float, options.rates.split(",")):
            rates[f"{share:.2f}"] = measure_rate(server, texts, share, offline["rate"], options)
        status, _ = server.end()
    best = max(block["texts_per_second"] for block in rates.values())
    figures = {
        "kind": about["kind"],
        "base": about["base"],
        "offline_texts_per_second": offline["rate"],
        "best_share_of_offline": best / offline["rate"],
        "texts_per_request": options.texts_per_request,
        "seconds": options.seconds,
        "profile": options.profile,
        "server_options": options.server,
        "load_average": load,  # of the machine, before: above its cores, the figures are of a busy one
        "environment": offline["environment"],
        "rates": rates,
    }
    if "0.50" in rates:
        figures["p99_at_half_in_batches"] = rates["0.50"]["p99_seconds"] / rates["0.50"]["batch_seconds"]
    write_json(FILE, (read_json(FILE) if FILE.exists() else {}) | {options.name: figures})
    print(f"serving: at best {best / offline['rate']:.0%} of offline; the server ended with {status}")


if __name__ == "__main__":
    run(main)
