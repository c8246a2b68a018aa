"""Scores a file window by window, so that memory doesn't grow with the number of rows."""

import hashlib
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from stages.classifier.scorer import Pending, Scorer, load_scorer, selected_sha256
from stages.classifier.sentences import explain
from stages.classifier.shift import Cells, Reference, Shift, add_cells, read_reference
from stages.classifier.trained import TrainedClassifier
from stages.code import ROOT, imported_files
from stages.data.lines import DataError
from stages.distributed import broadcast, rank, world_size
from stages.model.device import environment, pick_device
from stages.model.provenance import files_sha256
from stages.model.scoring import WINDOW, require_finite
from stages.paths import SELECTED
from stages.predict.output import Output, WindowRecord, writing
from stages.predict.read import Row, digest, empty, parse_window, windows
from stages.predict.source import Source
from stages.text.prompt import report_truncated

ADVICE = (
    "To find out, label 100 to 200 of them and name the file in evaluate.further_sets. To choose the threshold for "
    "them, make these texts valid of a data set of your own, or set select.fraud_fraction if only their share of "
    "fraud differs (docs/use.md)"
)


@dataclass(frozen=True)
class Window:
    """Rows that are scored together.

    Attributes:
        input_sha256: sha256 of their lines.
        rows: the parsed rows.
        numbers: their line numbers.
    """

    input_sha256: str
    rows: list[Row]
    numbers: list[int]


@dataclass
class Counts:
    """Counts over all rows of the output, including those of an earlier run."""

    rows: int = 0
    fraud: int = 0
    cut: int = 0
    cells: Cells = field(default_factory=dict)

    def add(self, window: WindowRecord) -> None:
        self.rows += window.rows
        self.fraud += window.fraud
        self.cut += window.cut
        self.cells = add_cells(self.cells, window.cells)


def classify(
    source: Source,
    out: Output | None,
    total: int | None,
    max_tokens_per_batch: int | None,
    explained: bool = False,
    profile: str = "plain",
) -> None:
    """Classifies the rows of `source`, and reports how many were called fraud and how many were cut.

    Args:
        source: the rows. Only the first process reads.
        out: where the rows go; None in all processes but the first.
        total: number of rows, None if not known yet.
        max_tokens_per_batch: most padded tokens in a batch. None takes the number with which the threshold was chosen.
        explained: whether to add what each sentence did to the score.
        profile: "plain" or "speed": compiled layers and CUDA graphs.
    """
    pick_device()  # several processes find each other here, also for a system that loads no model
    scorer = load_scorer(fast=profile == "speed")
    selected, reference = scorer.selected, read_reference(SELECTED)
    max_tokens_per_batch = max_tokens_per_batch or selected.max_tokens_per_batch
    if out:
        out.resume(settings(max_tokens_per_batch, source.column, explained, profile))
    counts = Counts()
    with tqdm(total=total, desc="predict", unit="text", disable=rank() > 0) as progress:
        new = new_windows(source, out, counts, progress) if out else iter(())
        for window, texts, pending in started(
            scorer, for_all(new), max_tokens_per_batch, windows_ahead(total, explained)
        ):
            scores = pending()
            require_finite(scores.log_odds, sources(source, window, len(texts)))
            further = further_values(scorer, texts, scores.log_odds, max_tokens_per_batch, explained)
            if out and window:
                probability = selected.probability(scores.log_odds)
                cells = count(reference, selected, texts, scores.log_odds) if reference else {}
                cut = int(scores.truncated.sum())
                done = write_window(out, window, probability, selected.threshold, cut, cells, further)
                counts.add(done)
                progress.update(done.rows)
    if out:
        finish(source, out, counts, total)
        report_truncated(
            "predict", source.name, counts.cut, counts.rows, selected.prompt.get("truncation_side", "right")
        )
        if reference:
            warn_of_shift(source.name, reference, counts)


def windows_ahead(total: int | None, explained: bool) -> int:
    """How many windows a GPU has before it while the CPU reads and writes others.

    Rows of a pipe go out at once. Sentences are scored when their window is written: processes whose queues differ
    after an error would then exchange scores of different texts.

    Args:
        total: number of rows in the first process, None of a pipe.
        explained: whether sentences are scored, too.
    """
    return int(bool(broadcast(total is not None)) and not explained and pick_device().type == "cuda")


def started(
    scorer: Scorer, windows: Iterator[tuple[Window | None, list[str]]], max_tokens_per_batch: int, ahead: int
) -> Iterator[tuple[Window | None, list[str], Pending]]:
    """Starts scoring each window, and yields it when `ahead` more are started. Those started before an error come
    first."""
    queue: deque[tuple[Window | None, list[str], Pending]] = deque()
    try:
        for window, texts in windows:
            queue.append((window, texts, scorer.start(texts, max_tokens_per_batch)))
            if len(queue) > ahead:
                yield queue.popleft()
    except Exception:
        yield from queue
        raise
    yield from queue


def further_values(
    scorer: Scorer, texts: list[str], log_odds: np.ndarray, max_tokens_per_batch: int, explained: bool
) -> list[dict[str, Any]]:
    """What rows hold beside label and probability.

    Args:
        scorer: the selected system.
        texts: n_rows texts.
        log_odds: their scores before calibration, float of shape (n_rows,).
        max_tokens_per_batch: most padded tokens in a batch.
        explained: whether to add what each sentence did to the score.
    """
    calibration = scorer.selected.calibration
    values: list[dict[str, Any]] = [{"log_odds": value} for value in calibration.log_odds(log_odds).tolist()]
    if scorer.selected.edges:
        bands = scorer.selected.edges.names(scorer.selected.probability(log_odds))
        for row, band in zip(values, bands, strict=True):
            row["band"] = band
    if explained:

        def score(variants: list[str]) -> np.ndarray:
            return calibration.log_odds(scorer.score(variants, max_tokens_per_batch).log_odds)

        for row, sentences in zip(values, explain(score, texts, scorer.reader), strict=True):
            row["sentences"] = [{"text": each.text, "effect": each.effect} for each in sentences]
    return values


def count(reference: Reference, selected: TrainedClassifier, texts: list[str], log_odds: np.ndarray) -> Cells:
    """Counts the texts of a window, to compare them with valid.

    Args:
        reference: valid.
        selected: the record of the system.
        texts: n_rows texts as they were given.
        log_odds: their scores before calibration, float of shape (n_rows,).
    """
    return reference.count([selected.as_read(text) for text in texts], selected.calibration.log_odds(log_odds))


def warn_of_shift(name: str, reference: Reference, counts: Counts) -> None:
    """Prints to standard error in what the texts differ from valid, if they do."""
    shift = Shift(reference, reference.compare(counts.cells), counts.fraud / counts.rows)
    for line in shift.warning(f"predict: WARNING: {name}", ADVICE):
        print(line, file=sys.stderr)


def finish(source: Source, out: Output, counts: Counts, total: int | None) -> None:
    """Completes the output and reports it. Raises DataError if there were no rows, or fewer than at the start.

    Args:
        source: the input.
        out: where the rows went.
        counts: sums over all windows.
        total: number of rows of the input at the start, None if not counted.
    """
    if not counts.rows:
        raise empty(source)
    if total is not None and counts.rows < total:
        raise DataError(
            f"{source.name} held {total} rows, and {counts.rows} when they were scored: leave it alone meanwhile"
        )
    with writing(out):
        out.finish()
    print(f"predict: {counts.rows} texts, {counts.fraud} called fraud, in {out.name}")


def write_window(
    out: Output,
    window: Window,
    probability: np.ndarray,
    threshold: float,
    cut: int,
    cells: Cells,
    further: Sequence[Mapping[str, Any]] | None = None,
) -> WindowRecord:
    """Writes the rows of a window.

    Probabilities have all digits, so that comparing a printed one with the threshold gives the label.

    Args:
        out: where the rows go.
        window: the rows.
        probability: probability of fraud, shape (n_rows,).
        threshold: from which probability on a text is called fraud.
        cut: number of texts that were cut.
        cells: counts of the texts, to compare them with valid.
        further: what each row holds beside label and probability, by key.
    """
    label = (probability >= threshold).tolist()
    further = further or [{}] * len(label)
    rows = "".join(map(Row.classified, window.rows, label, probability.tolist(), further)).encode()
    output_sha256 = hashlib.sha256(rows).hexdigest()
    done = WindowRecord(window.input_sha256, output_sha256, len(rows), len(window.rows), sum(label), cut, cells)
    with writing(out):
        out.write(rows, done)
    return done


def sources(source: Source, window: Window | None, rows: int) -> list[str]:
    """The place of each row of a window, for messages. Only the first process knows the lines."""
    return [f"{source.name}, line {number}" for number in window.numbers] if window else [source.name] * rows


def settings(
    max_tokens_per_batch: int, column: str = "input", explained: bool = False, profile: str = "plain"
) -> dict[str, str]:
    """All that a row depends on except its text. A run resumes an earlier one only if none of it changed."""
    return {
        "selected model": selected_sha256(SELECTED),
        "code": files_sha256([ROOT / file for file in imported_files("stages.predict.__main__")]),
        "--max-tokens-per-batch": str(max_tokens_per_batch),
        "--text-column": column,
        "--explain": str(explained),
        "--profile": profile,
        "window": str(WINDOW),
        "number of processes": str(world_size()),
        **environment(pick_device()),
    }


def new_windows(source: Source, out: Output, counts: Counts, progress: tqdm) -> Iterator[Window]:
    """Yields the windows to score. Those of an earlier run are counted and skipped.

    Args:
        source: the input.
        out: knows which windows were kept.
        counts, progress: advance by the kept windows.
    """
    kept = 0
    for lines in windows(source):
        input_sha256 = digest(lines)
        earlier = out.kept(input_sha256)
        if earlier:
            counts.add(earlier)
            kept += earlier.rows
            progress.initial += earlier.rows  # not part of this run's rate
            progress.update(earlier.rows)
            continue
        if kept:
            print(f"predict: resumes after the {kept} rows that an earlier run scored")
            kept = 0
        yield Window(input_sha256, parse_window(source, lines), [number for number, _ in lines])


def for_all(own: Iterator[Window]) -> Iterator[tuple[Window | None, list[str]]]:
    """Yields the texts of each window in all processes, and the window itself in the first, which reads it.

    All processes stop when reading fails in the first.
    """
    while True:
        window = None
        try:
            window = next(own, None)
        finally:
            texts = broadcast([row.text for row in window.rows] if window else None)
        if texts is None:
            return
        yield window, texts
