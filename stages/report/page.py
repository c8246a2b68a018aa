"""The page: its parts in their order, and what its script computes with."""

import json
from pathlib import Path
from typing import Any

from stages.report import sections, threshold
from stages.report.bands import bands
from stages.report.errors import Marks, errors
from stages.report.html import document, stack
from stages.report.kinds import false_alarms, leaks, recall, shortcuts
from stages.report.rates import harmless_units
from stages.report.read import Run
from stages.report.words import Words

TITLE = Words("诈骗分类器：评估报告", "Fraud classifier: report")


def page(run: Run, beside: str = "", end: str = "", marks: Marks | None = None) -> str:
    """The whole file.

    Args:
        run: its figures.
        beside: HTML that follows the verdict: an earlier run.
        end: HTML at the end: where and when.
        marks: what is marked in the errors.
    """
    content = body(run, beside, end, marks or {})
    return document(TITLE, content, Path(__file__).parent, "report", embedded(slider_data(run)))


def body(run: Run, beside: str, end: str, marks: Marks) -> str:
    """The parts in their order. The arguments are those of `page`."""
    parts = (
        sections.verdict(run),
        beside,
        sections.answers(run),
        sections.ladder(run),
        stack(threshold.curves(run), sections.reliability(run)) + stack(*threshold.costs_of_thresholds(run)),
        bands(run),
        stack(recall(run)) + stack(false_alarms(run), sections.lengths(run)),
        leaks(run) + shortcuts(run),
        sections.further(run),
        sections.folds(run),
        errors(run, marks),
        sections.provenance(run),
        end,
    )
    return "\n".join(filter(None, parts))


def slider_data(run: Run) -> dict[str, Any] | None:
    """What the slider needs: by system its thresholds from low to high, as [threshold, tp, fp], and its own."""
    curves = threshold.all_points(run)
    if run.used not in curves:
        return None
    systems = {
        system: {
            "own": len(curve) - 1 - threshold.own_point(run, system, curve),
            "points": [[point.threshold, point.tp, point.fp] for point in reversed(curve)],
        }
        for system, curve in curves.items()
    }
    return {
        "fraud": int(run.labels.sum()),
        "harmless": int((~run.labels).sum()),
        "units": harmless_units(run),
        "systems": systems,
    }


def embedded(values: Any) -> str:
    """JSON that can't end the script that it stands in."""
    text = json.dumps(values, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
