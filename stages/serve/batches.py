"""Forms batches of the texts that wait, and scores them in one thread, which owns the model.

A batch holds the text that has waited longest, and of the others those nearest to it in length. So no text waits
forever, and little is padded. A batch is formed as soon as the model is free. Only a text that finds it idle waits a
moment for others.
"""

import contextlib
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass

import numpy as np

from stages.api import Classifier, Sentence
from stages.text.batching import padded

BYTES_PER_TOKEN = 4  # of UTF-8, about, of common tokenizers in Chinese and in English
PROMPT_TOKENS = 32  # around a text, about
FAILURES = 3  # batches in a row of which no text could be scored: then the process is broken
LOOKED_AT = 512  # texts at the head of the queue that a batch is chosen from: a longer sort would keep the model idle
SMOOTHING = 0.2  # weight of the newest batch in the mean rate

logger = logging.getLogger("stages.serve")


@dataclass(frozen=True)
class Result:
    """A scored text. log_odds: calibrated, of fraud. truncated: whether it was cut. sentences: where asked for."""

    log_odds: float
    truncated: bool
    sentences: Sequence[Sentence] | None = None


class RefusedError(Exception):
    """The queue has no room, or there is no model yet. seconds: when to try again."""

    def __init__(self, reason: str, seconds: int):
        super().__init__(reason)
        self.reason, self.seconds = reason, seconds


class Ticket:
    """The n texts of a request. `future` has their results once all are there, or the first error.

    context: what `Worker.record` gets to know of the request.
    """

    def __init__(self, texts: int, context: object):
        self.context = context
        self.future: Future[list[Result]] = Future()
        self.found: list[Result | None] = [None] * texts
        self.left = texts
        self.arrived = time.monotonic()

    def settle(self, number: int, result: Result | Exception) -> None:
        """Keeps the result of a text. Only the worker's thread calls this; the request may have given up."""
        with contextlib.suppress(InvalidStateError):
            if isinstance(result, Exception):
                self.future.set_exception(result)
                return
            self.found[number] = result
            self.left -= 1
            if not self.left:
                self.future.set_result([each for each in self.found if each])


@dataclass(eq=False)
class Job:
    """A text that waits: text `number` of a request. cost: how many texts it is worth."""

    text: str
    tokens: int
    cost: int
    explain: bool
    ticket: Ticket
    number: int


def estimate_tokens(text: str, most: int) -> int:
    """About how many padded tokens a text takes, with its prompt. most: the longest row."""
    return min(padded(PROMPT_TOKENS + len(text.encode()) // BYTES_PER_TOKEN), most)


def choose_batch(waiting: Sequence[Job], budget: int) -> list[Job]:
    """The jobs of the next batch, at least the first one. An explained text is a batch of its own.

    Args:
        waiting: jobs in the order of their arrival, one or more.
        budget: maximum of padded tokens, the longest row times the rows.
    """
    first = waiting[0]
    if first.explain:
        return [first]
    others = [job for job in itertools.islice(waiting, 1, LOOKED_AT) if not job.explain]
    others.sort(key=lambda job: abs(job.tokens - first.tokens))
    batch, longest = [first], first.tokens
    for job in others:
        longest = max(longest, job.tokens)
        if longest * (len(batch) + 1) > budget:
            break
        batch.append(job)
    return batch


class Worker:
    """The thread that loads the classifier, scores what waits, and ends when all of it is scored.

    Args:
        load: loads the classifier.
        record: called for each scored batch before its texts are answered, with (context, text, result) of each. If it
            raises an error, so do the batch's requests.
        observe: called with the number of texts in a batch and the seconds that it took.
        max_waiting, batch_tokens, batch_wait: as in Settings.
    """

    def __init__(
        self,
        load: Callable[[], Classifier],
        record: Callable[[list[tuple[object, str, Result]]], None] = lambda scored: None,
        observe: Callable[[int, float], None] = lambda texts, seconds: None,
        *,
        max_waiting: int = 2048,
        batch_tokens: int = 4096,
        batch_wait: float = 0.003,
    ):
        self.load, self.record, self.observe = load, record, observe
        self.max_waiting, self.batch_tokens, self.batch_wait = max_waiting, batch_tokens, batch_wait
        self.classifier: Classifier | None = None
        self.failed: Exception | None = None  # why there is no classifier
        self.on_failure: Callable[[], None] = lambda: None
        self.on_ready: Callable[[], None] = lambda: None
        self.waiting: list[Job] = []
        self.cost = 0  # of all that waits
        self.rate = 0.0  # texts a second, while the model works
        self.failures = 0
        self.closing = False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self.work, name="model", daemon=True)

    @property
    def is_ready(self) -> bool:
        return self.classifier is not None and self.is_alive

    @property
    def is_alive(self) -> bool:
        """Whether the thread works, or will: false once the model fails at everything."""
        return self.failed is None and self.failures < FAILURES and not (self.closing and not self.thread.is_alive())

    def start(self) -> None:
        self.thread.start()

    def close(self) -> None:
        """Scores what waits, and ends the thread. A model that is still loading is not waited for."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        if self.classifier is not None:
            self.thread.join()

    def submit(
        self, texts: Sequence[str], costs: Sequence[int], explain: bool, context: object
    ) -> "Future[list[Result]]":
        """Adds the n texts of a request to the queue, all or none. Returns a future of their results.

        Args:
            texts: n texts, at least one.
            costs: how many texts each is worth.
            explain: whether their sentences are wanted.
            context: what `record` gets to know of them.

        Raises RefusedError if the queue has no room, or the classifier is not loaded or can't score.
        """
        if not self.is_ready:
            raise RefusedError("the model is not loaded yet" if self.is_alive else "the model can't score", 5)
        ticket, added = Ticket(len(texts), context), sum(costs)
        jobs = [
            Job(text, estimate_tokens(text, self.batch_tokens), cost, explain, ticket, number)
            for number, (text, cost) in enumerate(zip(texts, costs, strict=True))
        ]
        with self.changed:
            # A request that is larger than the queue can only be taken when nothing waits.
            if self.closing or (self.waiting and self.cost + added > self.max_waiting):
                raise RefusedError("too many texts are waiting", self.seconds_to_empty())
            self.waiting += jobs
            self.cost += added
            self.changed.notify()
        return ticket.future

    def seconds_to_empty(self) -> int:
        """About how long the queue will take, from 1 to 60 seconds."""
        return max(1, min(60, math.ceil(self.cost / self.rate) if self.rate else 1))

    def work(self) -> None:
        try:
            classifier = self.load()
            for _ in range(3):  # the first pass takes longer than others; of CUDA graphs, the second is captured
                classifier.score(["。"])
        except Exception as error:
            self.failed = error
            self.on_failure()
            return
        self.classifier = classifier
        self.on_ready()
        while batch := self.next_batch():
            self.answer(batch)

    def next_batch(self) -> list[Job]:
        """Waits for texts, and takes a batch of them out of the queue. An empty one is the end."""
        with self.changed:
            while True:
                if self.waiting:
                    left = self.waiting[0].ticket.arrived + self.batch_wait - time.monotonic()
                    if left > 0 and not self.closing and sum(job.tokens for job in self.waiting) < self.batch_tokens:
                        self.changed.wait(left)
                        continue
                    batch = choose_batch(self.waiting, self.batch_tokens)
                    self.drop(batch)
                    if wanted := [job for job in batch if not job.ticket.future.done()]:  # else given up, or failed
                        return wanted
                elif self.closing:
                    return []
                else:
                    self.changed.wait()

    def drop(self, jobs: list[Job]) -> None:
        """Takes jobs out of the queue."""
        gone = set(jobs)
        self.waiting = [job for job in self.waiting if job not in gone]
        self.cost -= sum(job.cost for job in jobs)

    def answer(self, batch: list[Job]) -> None:
        """Scores a batch and sets its futures. If that fails, each of its texts is tried by itself."""
        begun = time.monotonic()
        found: list[Result | Exception]
        try:
            found = list(self.score(batch))
        except Exception as error:
            logger.exception("a batch of %d texts could not be scored", len(batch))
            found = [error] if len(batch) == 1 else [self.score_alone(job) for job in batch]
        seconds = time.monotonic() - begun
        scored = [(job, result) for job, result in zip(batch, found, strict=True) if isinstance(result, Result)]
        self.failures = 0 if scored else self.failures + 1
        cost = sum(job.cost for job in batch)
        self.rate += (cost / max(seconds, 1e-6) - self.rate) * (SMOOTHING if self.rate else 1)
        self.observe(cost, seconds)
        try:
            # A request that was given up meanwhile gets no verdict, so there is none to record.
            asked = [(job, result) for job, result in scored if not job.ticket.future.done()]
            self.record([(job.ticket.context, job.text, result) for job, result in asked])
        except Exception as error:
            logger.exception("verdicts could not be recorded")
            found = [error] * len(batch)
        for job, result in zip(batch, found, strict=True):
            job.ticket.settle(job.number, result)

    def score(self, batch: list[Job]) -> list[Result]:
        """The results of a batch. Raises ValueError if a score is no number."""
        assert self.classifier
        scores = self.classifier.score([job.text for job in batch])
        if not np.isfinite(scores.log_odds).all():
            raise ValueError(f"scores are not finite: {scores.log_odds}")
        sentences = [self.classifier.explain(job.text) if job.explain else None for job in batch]
        numbers = zip(scores.log_odds.tolist(), scores.truncated.tolist(), sentences, strict=True)
        return [Result(log_odds, bool(truncated), found) for log_odds, truncated, found in numbers]

    def score_alone(self, job: Job) -> Result | Exception:
        try:
            return self.score([job])[0]
        except Exception as error:
            return error
