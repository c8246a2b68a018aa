"""The page as one file: style, script and data are inside, and its content policy forbids anything else."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from stages.report import sections, threshold
from stages.report.bands import bands
from stages.report.errors import Marks, errors
from stages.report.html import stack
from stages.report.kinds import false_alarms, leaks, recall, shortcuts
from stages.report.read import Run
from stages.report.words import Words, both

HERE = Path(__file__).parent
SHARED = HERE.parent / "serve" / "page"  # what this page and the one of serve have in common
STYLES = (SHARED / "base.css", HERE / "page.css")
SCRIPTS = (SHARED / "language.js", HERE / "page.js")
TITLE = Words("诈骗分类器：评估报告", "Fraud classifier: report")


def page(run: Run, beside: str = "", end: str = "", marks: Marks | None = None) -> str:
    """The whole file.

    Args:
        run: its figures.
        beside: HTML that follows the verdict: an earlier run.
        end: HTML at the end: where and when.
        marks: what is marked in the errors.
    """
    style, script = ("".join(path.read_text(encoding="utf-8") for path in paths) for paths in (STYLES, SCRIPTS))
    script = f"\n{script}"
    trusted = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{trusted}'; base-uri 'none'"
    languages = "".join(
        f'<button type="button" lang="{lang}" data-language="{key}">{name}</button>'
        for key, lang, name in (("zh", "zh-CN", "中文"), ("en", "en", "English"))
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{TITLE.en} · {TITLE.zh}</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{both(TITLE)}</h1>
<div class="languages" role="group" aria-label="Language / 语言">{languages}</div></header>
<main class="report">
{body(run, beside, end, marks or {})}
</main>
<script type="application/json" id="data">{embedded(slider_data(run))}</script>
<script>{script}</script>
</body>
</html>
"""


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
    """What the slider needs: by system its thresholds, as [threshold, tp, fp], and the index of its own."""
    curves = threshold.all_points(run)
    if run.used not in curves:
        return None
    systems = {
        system: {
            "own": threshold.own_point(run, system, curve),
            "points": [[point.threshold, point.tp, point.fp] for point in curve],
        }
        for system, curve in curves.items()
    }
    return {"fraud": int(run.labels.sum()), "harmless": int((~run.labels).sum()), "systems": systems}


def embedded(values: Any) -> str:
    """JSON that can't end the script that it stands in."""
    text = json.dumps(values, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
