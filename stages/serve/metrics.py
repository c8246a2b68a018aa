"""What the server counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SHARES = tuple(tenth / 10 for tenth in range(1, 11))
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


disable_created_metrics()  # a series beside each one, which nobody asks for


class Metrics:
    """Counters of one server, in a registry of its own.

    Args:
        waiting: returns how many texts wait.
        ready: returns whether the server can score.
    """

    def __init__(self, waiting: Callable[[], float], ready: Callable[[], bool]):
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("serve_requests", "Requests answered", ["path", "status"], registry=registry)
        self.request_seconds = Histogram(
            "serve_request_seconds", "From a request's head to its answer", ["path"], buckets=SECONDS, registry=registry
        )
        self.texts = Counter("serve_texts", "Texts classified", ["label"], registry=registry)
        self.truncated = Counter("serve_texts_truncated", "Texts longer than the model reads", registry=registry)
        self.probability = Histogram(
            "serve_probability",
            "Probability of fraud: compare it with that of valid",
            buckets=SHARES,
            registry=registry,
        )
        self.batch_texts = Histogram("serve_batch_texts", "Texts in a batch", buckets=TEXTS, registry=registry)
        self.batch_seconds = Histogram("serve_batch_seconds", "Time of a batch", buckets=SECONDS, registry=registry)
        self.verdicts = Counter("serve_verdicts", "Verdicts of people", ["label"], registry=registry)
        Gauge("serve_waiting", "Texts that wait", registry=registry).set_function(waiting)
        Gauge("serve_ready", "1 if the server can score", registry=registry).set_function(ready)
        self.model = Gauge("serve_model", "1 for the model in use", ["id", "kind"], registry=registry)

    def observe_batch(self, texts: int, seconds: float) -> None:
        self.batch_texts.observe(texts)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)
