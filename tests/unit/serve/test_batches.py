"""The worker: what a batch holds, that every text is answered once, and what happens when scoring fails."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.api import Classifier, Scores
from stages.serve.batches import FAILURES, Job, RefusedError, Ticket, Worker, choose_batch, estimate_tokens

SECONDS = 30


class Lengths(Classifier):
    """Log-odds are the number of characters. `gate` holds back scoring; the text "bad" can't be scored."""

    threshold = 0.5

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[str]] = []
        self.bad = {"bad"}

    def score(self, texts):
        self.gate.wait(SECONDS)
        self.batches.append(list(texts))
        if self.bad & set(texts):
            raise RuntimeError("bad text")
        return Scores(np.array([float(len(text)) for text in texts]), np.zeros(len(texts), dtype=bool))


@pytest.fixture
def start():
    workers = []

    def make(classifier, **given) -> Worker:
        worker = Worker(lambda: classifier, **{"batch_wait": 0.0} | given)
        workers.append(worker)
        worker.start()
        deadline = time.monotonic() + SECONDS
        while not worker.is_ready and time.monotonic() < deadline:
            time.sleep(0.001)
        classifier.batches.clear()  # of the warm-up
        return worker

    yield make
    for worker in workers:
        worker.close()


def jobs_of(rows: list[tuple[int, bool]]) -> list[Job]:
    return [Job("a", tokens, 1, explain, Ticket(1, None), 0) for tokens, explain in rows]


@given(st.lists(st.tuples(st.integers(1, 500), st.booleans()), min_size=1, max_size=60), st.integers(1, 3000))
def test_a_batch_holds_the_first_text_keeps_the_budget_and_could_take_no_nearer_one(rows, budget):
    waiting = jobs_of(rows)
    batch = choose_batch(waiting, budget)
    assert batch[0] is waiting[0]
    assert len(batch) == 1 or max(job.tokens for job in batch) * len(batch) <= budget
    assert not any(job.explain for job in batch) or len(batch) == 1
    if not batch[0].explain:
        others = [job for job in waiting[1:] if not job.explain and job not in batch]
        farthest = max(abs(job.tokens - batch[0].tokens) for job in batch)
        assert all(abs(job.tokens - batch[0].tokens) >= farthest for job in others)


@given(st.text(max_size=200), st.integers(64, 4096))
def test_an_estimate_is_a_row_that_fits(text, most):
    assert 0 < estimate_tokens(text, most) <= most


def test_all_texts_of_many_threads_are_answered_in_their_order_in_batches(start):
    classifier = Lengths()
    worker = start(classifier, batch_tokens=400)
    found: dict[int, list[float]] = {}

    def ask(number: int) -> None:
        texts = ["文" * (1 + (number * 7 + each) % 60) for each in range(1 + number % 5)]
        results = worker.submit(texts, [1] * len(texts), False, None).result(SECONDS)
        found[number] = [result.log_odds for result in results]
        assert found[number] == [float(len(text)) for text in texts]

    classifier.gate.clear()
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    while sum(job is not None for job in worker.waiting) < 100:
        time.sleep(0.001)
    classifier.gate.set()
    for thread in threads:
        thread.join(SECONDS)
    assert len(found) == 40
    assert sum(map(len, classifier.batches)) == sum(map(len, found.values())) == 120
    assert len(classifier.batches) < 60
    assert worker.cost == 0


def test_a_text_that_fails_fails_alone(start):
    worker = start(Lengths())
    worker.classifier.gate.clear()
    futures = [worker.submit([text], [1], False, None) for text in ("first", "good", "bad", "ok")]
    worker.classifier.gate.set()
    assert [future.result(SECONDS)[0].log_odds for future in futures[:2] + futures[3:]] == [5, 4, 2]
    with pytest.raises(RuntimeError, match="bad text"):
        futures[2].result(SECONDS)
    assert worker.is_alive


def test_a_model_that_fails_at_everything_is_no_longer_alive(start):
    worker = start(Lengths())
    for _ in range(FAILURES):
        assert worker.is_alive
        with pytest.raises(RuntimeError):
            worker.submit(["bad"], [1], False, None).result(SECONDS)
    assert not worker.is_alive
    with pytest.raises(RefusedError, match="can't score"):
        worker.submit(["good"], [1], False, None)


def test_scores_that_are_no_numbers_are_errors(start):
    classifier = Lengths()
    worker = start(classifier)
    classifier.score = lambda texts: Scores(np.full(len(texts), np.nan), np.zeros(len(texts), dtype=bool))
    with pytest.raises(ValueError, match="not finite"):
        worker.submit(["a"], [1], False, None).result(SECONDS)


def test_a_full_queue_refuses_a_request_as_a_whole_and_says_when_to_come_back(start):
    classifier = Lengths()
    worker = start(classifier, max_waiting=4)
    classifier.gate.clear()
    first = worker.submit(["a"], [1], False, None)
    while worker.waiting:
        time.sleep(0.001)
    kept = worker.submit(["bb", "cc", "dd"], [1] * 3, False, None)
    with pytest.raises(RefusedError, match="waiting") as refused:
        worker.submit(["e", "f"], [1, 1], False, None)
    assert 1 <= refused.value.seconds <= 60
    assert len(worker.waiting) == 3
    classifier.gate.set()
    assert [len(future.result(SECONDS)) for future in (first, kept)] == [1, 3]


def test_texts_of_a_request_that_gave_up_are_not_scored(start):
    classifier = Lengths()
    worker = start(classifier)
    classifier.gate.clear()
    worker.submit(["a"], [1], False, None)
    while worker.waiting:
        time.sleep(0.001)
    given_up, kept = worker.submit(["bb", "cc"], [1, 1], False, None), worker.submit(["dd"], [1], False, None)
    given_up.cancel()
    classifier.gate.set()
    assert kept.result(SECONDS)[0].log_odds == 2
    assert "bb" not in {text for batch in classifier.batches for text in batch}
    assert worker.cost == 0


def test_no_verdict_is_recorded_for_a_request_that_gave_up_while_it_was_scored(start):
    classifier, recorded = Lengths(), []
    worker = start(classifier, record=recorded.extend)
    recorded.clear()
    classifier.gate.clear()
    gone = worker.submit(["gone"], [1], False, None)
    deadline = time.monotonic() + SECONDS
    while worker.waiting and time.monotonic() < deadline:
        time.sleep(0.001)
    assert gone.cancel()
    stays = worker.submit(["stays"], [1], False, None)
    classifier.gate.set()
    assert stays.result(SECONDS)
    assert [text for _, text, _ in recorded] == ["stays"]
    assert classifier.batches == [["gone"], ["stays"]]


def test_closing_answers_what_waits_and_takes_nothing_more(start):
    classifier = Lengths()
    worker = start(classifier)
    classifier.gate.clear()
    futures = [worker.submit(["a" * size], [1], False, None) for size in range(1, 20)]
    closing = threading.Thread(target=worker.close)
    closing.start()
    while not worker.closing:
        time.sleep(0.001)
    with pytest.raises(RefusedError):
        worker.submit(["late"], [1], False, None)
    classifier.gate.set()
    closing.join(SECONDS)
    assert [future.result(0)[0].log_odds for future in futures] == list(range(1, 20))


def test_a_verdict_that_can_not_be_recorded_is_not_given(start):
    def full(scored):
        raise OSError(28, "No space left on device")

    worker = start(Lengths(), record=full)
    with pytest.raises(OSError, match="No space"):
        worker.submit(["a"], [1], False, None).result(SECONDS)


def test_an_explained_text_has_its_sentences(start, classifier):
    text = "您好，这里是市公安局。请把钱转到安全账户。"
    worker = Worker(lambda: classifier)
    worker.start()
    while not worker.is_ready:
        time.sleep(0.001)
    plain = worker.submit([text], [1], False, None).result(SECONDS)[0]
    explained = worker.submit([text], [3], True, None).result(SECONDS)[0]
    worker.close()
    assert plain.sentences is None
    assert explained.sentences == classifier.explain(text)
    assert explained.log_odds == plain.log_odds == pytest.approx(classifier.log_odds([text])[0])
