"""The pages show what the committed runs found: the default run, and trainings on real data."""

import csv
import itertools
import re
import statistics

import pytest

from tests.conftest import ROOT
from tests.unit.pages.committed import COMMITTED, RESULTS, read, table_row
from tools import figures

pytestmark = COMMITTED


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md", "docs/results.md"])
def test_pages_show_the_default_run(page):
    text = (ROOT / page).read_text()
    metrics, training = read(ROOT / "metrics/evaluate.json"), read(ROOT / "metrics/train.json")["measured"]
    model, baseline, difference = (metrics[key] for key in ("model", "baseline", "difference"))
    bounds = [figures.signed(difference[f"average_precision{end}"], 3) for end in ("", "_low", "_high")]
    shown = [f"{model['average_precision']:.3f}", f"{baseline['average_precision']:.3f}", bounds[0]]
    shown += [
        f"[{bounds[1]}, {bounds[2]}]",
        f"{training['seconds']:.0f}",
        f"{training['peak_memory_bytes'] / 1e9:.1f} GB",
    ]
    assert [number for number in shown if number not in text] == []


def test_the_loading_table_is_that_of_the_default_run():
    page = (ROOT / "docs/performance.md").read_text()
    rows = []
    for name, block in read(ROOT / "metrics/benchmark.json").items():
        if name == "environment":
            continue
        facts, measured = block["facts"], block["measured"]
        shown = "`qlora`, saved in 4 bits before" if name == "qlora-prequantized" else f"`{name}`"
        rows.append(
            f"| {shown} | {facts['weight_bytes'] / 1e6:.1f} | {facts['quantization_error']:.4f} "
            f"| {measured['load_seconds_cold']:.2f} | {measured['load_seconds_warm']:.2f} "
            f"| {measured['peak_bytes'] / 1e6:.0f} | {measured['forward_tokens_per_second']:.0f} |"
        )
    assert rows
    assert [row for row in rows if row not in page] == []


CASES = RESULTS / "h200/anti_fraud_cases"
SEEDS = (1, 2, 3)
TRAINED = {"model": "model", "combined": "model and baseline"}
CHEAP = {
    "zero_shot": "zero-shot",
    "baseline": "TF-IDF baseline",
    "probe": "probe",
    "combined_cheap": "probe and baseline",
}
SETS = {
    "test": (),
    "fraud cases alone": ("without_categories",),
    "calls": ("further", "teleantifraud"),
}


def evaluated(names, seed, keys=()):
    """What evaluate reports of a training on the cases.

    Args:
        names: "removed" or "kept".
        seed: of the training.
        keys: where a test set's report is in the whole.
    """
    part = read(CASES / f"names_{names}/seed-{seed}/evaluate.json")
    for key in keys:
        part = part[key]
    return part


def signed_with_bounds(block, digits=4):
    value, low, high = (figures.signed(block[f"average_precision{end}"], digits) for end in ("", "_low", "_high"))
    return re.sub(r"(?<=[+−])0(?=\.)", "", f"{value} [{low}, {high}]")


def with_bounds(block):
    value, low, high = (block[f"average_precision{end}"] for end in ("", "_low", "_high"))
    return f"{value:.4f} [{low:.3f}, {high:.3f}]".replace("0.", ".")


def rows_of_systems():
    """Average precision of each system, on test and on the calls, names removed and kept."""
    columns = [(names, SETS[part]) for names in ("removed", "kept") for part in ("test", "calls")]
    rows = [(name, system, 1) for system, name in CHEAP.items()]
    rows += [(f"{name}, seed {seed}", system, seed) for system, name in TRAINED.items() for seed in SEEDS]
    for name, system, seed in rows:
        cells = [with_bounds(evaluated(names, seed, keys)[system]) for names, keys in columns]
        yield table_row(name, *cells)


def rows_of_differences():
    """Paired differences of each training, on each test set."""
    for names in ("removed", "kept"):
        for part, keys in SETS.items():
            for seed in SEEDS:
                report = evaluated(names, seed, keys)
                assert report["best_cheap"]["name"] == "combined_cheap"
                blocks = [report["ahead"]["model"], report["difference"], report["ahead"]["combined"]]
                first = f"names {names}, {part}" if seed == SEEDS[0] else ""
                yield f"| {first} | {seed} | {' | '.join(map(signed_with_bounds, blocks))} |".replace("|  |", "| |")


def rows_of_promises():
    """Precision at half fraud, as promised on valid and as kept."""
    for names in ("removed", "kept"):
        for seed in SEEDS:
            report = evaluated(names, seed)
            promised, kept = report["promised"], report["kept"]
            figures_shown = (promised["precision"], promised["precision_low"])
            figures_shown += tuple(kept[part]["precision"] for part in ("test", "teleantifraud"))
            cells = " | ".join(f"{value:.3f}".lstrip("0") for value in figures_shown)
            yield f"| {f'names {names}' if seed == SEEDS[0] else ''} | {seed} | {cells} |".replace("|  |", "| |")


@pytest.mark.parametrize("rows", [rows_of_systems, rows_of_differences, rows_of_promises])
def test_the_tables_of_the_cases_are_those_of_the_json(rows):
    page = (ROOT / "docs/results.md").read_text()
    assert [row for row in rows() if row not in page] == []


def test_a_trainings_cheap_systems_do_not_depend_on_its_seed():
    for names, keys in itertools.product(("removed", "kept"), SETS.values()):
        first, *others = ({system: evaluated(names, seed, keys)[system] for system in CHEAP} for seed in SEEDS)
        for other in others:
            assert {name: block["average_precision"] for name, block in other.items()} == {
                name: block["average_precision"] for name, block in first.items()
            }


LEAKY = {
    "test0819, 2,343 texts": ("leaky", ()),
    "its 220 clean texts": ("leaky", ("clean",)),
    "eval0819, 2,345 texts": ("minus", ()),
    "its 273 clean texts": ("minus", ("clean",)),
}


def span(values):
    """The lowest and the highest of several values."""
    return " to ".join(f"{value:.4f}".lstrip("0") for value in (min(values), max(values)))


def span_with_bounds(blocks):
    """The lowest and the highest of several differences, with the outermost ends of their intervals."""
    values = [block["average_precision"] for block in blocks]
    low = min(block["average_precision_low"] for block in blocks)
    high = max(block["average_precision_high"] for block in blocks)
    least, most, low, high = (
        figures.signed(value, 4).replace("0", "", 1) for value in (min(values), max(values), low, high)
    )
    return f"{least} to {most} [{low}, {high}]"


def rows_of_leaky_splits():
    """Average precision on the article's splits and paired differences, over the seeds."""
    for part, (entry, keys) in LEAKY.items():
        reports = [read(RESULTS / f"h200/anti_fraud_sft_{entry}/seed-{seed}/evaluate.json") for seed in SEEDS]
        for key in keys:
            reports = [report[key] for report in reports]
        assert all(report["best_cheap"]["name"] == "combined_cheap" for report in reports)
        assert all(f"{report['size']['rows']:,}" in part for report in reports)
        values = {
            system: [report[system]["average_precision"] for report in reports]
            for system in ("baseline", "combined_cheap", "model", "combined")
        }
        cells = [f"{values[system][0]:.4f}".lstrip("0") for system in ("baseline", "combined_cheap")]
        cells += [span(values[system]) for system in ("model", "combined")]
        cells.append(span_with_bounds([report["ahead"]["model"] for report in reports]))
        cells.append(span_with_bounds([report["difference"] for report in reports]))
        cells.append(span_with_bounds([report["ahead"]["combined"] for report in reports]))
        yield table_row(part, *cells)


def promises_of_a_leaky_valid():
    """The line on precision at half fraud, as promised and as kept."""
    reports = [read(RESULTS / f"h200/anti_fraud_sft_leaky/seed-{seed}/evaluate.json") for seed in SEEDS]
    blocks = [[report["promised"] for report in reports]]
    blocks += [[report["kept"][part] for report in reports] for part in ("test", "teleantifraud")]
    promised, test, calls = (
        "{}, {} and {}".format(*(f"{block['precision']:.3f}".lstrip("0") for block in three)) for three in blocks
    )
    return f"They promised {promised}. They kept {test} on test0819, and **{calls}** on the calls."


def test_the_article_splits_are_those_of_the_json():
    page = (ROOT / "docs/results.md").read_text()
    assert [row for row in rows_of_leaky_splits() if row not in page] == []
    assert promises_of_a_leaky_valid() in page


def test_the_study_of_batches_is_that_of_the_json():
    page = (ROOT / "docs/recipes.md").read_text()
    head = re.search(r"^\| batch \|(.*)\|$", page, re.MULTILINE)[1]
    rates = [float(rate) for rate in head.split("|")]
    shown = {}
    for batch, two, cells in re.findall(r"^\| (\d+)(, two epochs)? \|((?:[ .*\d]*\|){5})$", page, re.MULTILINE):
        for rate, cell in zip(rates, cells.split("|"), strict=False):
            if cell.strip():
                shown[int(batch), 2 if two else 1, rate] = float(cell.strip(" *"))
    study = read(RESULTS / "h200/batch_study.json")["recipes"]
    for each in study:
        folds = [fold["average_precision"] for fold in each["folds"].values()]
        assert each["average_precision"] == pytest.approx(sum(folds) / len(folds), abs=0.0001)
    keys = [(each["batch"], each["epochs"], each["learning_rate"]) for each in study]
    expected = {
        key: pytest.approx(each["average_precision"], abs=0.00055) for key, each in zip(keys, study, strict=True)
    }
    assert shown == expected


def default_run():
    """Rows of the tables of the default run."""
    report = read(ROOT / "metrics/evaluate.json")
    for system, name in (CHEAP | TRAINED).items():
        block = report[system]
        cells = [f"{block['precision']:.3f}", f"{block['recall']:.3f}"]
        for metric in ("f1", "average_precision", "roc_auc"):
            value, low, high = (block[f"{metric}{end}"] for end in ("", "_low", "_high"))
            cells.append(f"{value:.3f} [{low:.3f}, {high:.3f}]")
        counts = " / ".join(str(block[count]) for count in ("tp", "fp", "fn", "tn"))
        yield f"| {'**model**' if system == 'model' else name} | {' | '.join(cells)} | {counts} |"
    for system in ("model", "combined", "baseline", "probe"):
        block, name = report["ahead"][system], (CHEAP | TRAINED)[system]
        ends = [
            [figures.signed(block[f"{metric}{end}"], 3) for end in ("", "_low", "_high")]
            for metric in ("average_precision", "f1")
        ]
        yield f"| {name} | " + " | ".join(f"{value} [{low}, {high}]" for value, low, high in ends) + " |"


def test_the_tables_of_the_default_run_are_those_of_the_json():
    page = (ROOT / "docs/results.md").read_text()
    assert [row for row in default_run() if row not in page] == []


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_printed_lines_of_the_start_are_those_of_the_json(page):
    text, report = (ROOT / page).read_text(), read(ROOT / "metrics/evaluate.json")
    shown = re.findall(r"^evaluate: test: (\w+) +(0\.\d+ \[.*)$", text, re.MULTILINE)
    assert {"baseline", "combined_cheap", "model"} <= {system for system, _ in shown}
    for system, line in shown:
        block, ahead = report[system], report["ahead"].get(system)
        keys = ["average_precision", "average_precision_low", "average_precision_high", "f1", "precision", "recall"]
        expected = [f"{block[key]:.3f}" for key in keys] + [f"{ahead['average_precision']:+.3f}" if ahead else "best"]
        assert line.replace("[", "").replace("]", "").replace(",", "").split() == expected
    kept, promised = report["kept"]["test"], report["promised"]
    last = (
        f"precision {kept['precision']:.3f}, promised on valid {promised['precision']:.3f} "
        f"(at least {promised['precision_low']:.3f})"
    )
    assert last in text


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_a_readmes_results_of_three_seeds_are_those_of_the_json(page):
    text = (ROOT / page).read_text()
    for part in ("test", "calls"):
        reports = [evaluated("removed", seed, SETS[part]) for seed in SEEDS]
        ahead = sorted(report["ahead"]["model"]["average_precision"] for report in reports)
        model = sorted(report["model"]["average_precision"] for report in reports)
        cheap = reports[0]["combined_cheap"]["average_precision"]
        cells = [[figures.signed(value, 4).replace("0", "", 1) for value in (ahead[0], ahead[-1])]]
        cells += [[f"{value:.4f}".lstrip("0") for value in (model[0], model[-1])]]
        to = " 至 " if page.endswith("zh-CN.md") else " to "
        assert f"| {to.join(cells[0])} | {to.join(cells[1])} | {f'{cheap:.4f}'.lstrip('0')} |" in text


def test_the_same_run_elsewhere_is_that_of_the_json():
    page = (ROOT / "docs/results.md").read_text()
    for folder in [ROOT / "metrics", *(RESULTS / "cpu").iterdir()]:
        report = read(folder / "evaluate.json")
        cells = [
            f"{report[system]['average_precision']:.4f} | {report[system]['f1']:.3f}"
            for system in ("model", "combined")
        ]
        assert f" | {' | '.join(cells)} | " in page
    older, newer = (read(RESULTS / f"cpu/{name}/evaluate.json") for name in ("amd", "xeon_float32"))
    systems = ("baseline", "probe", "combined_cheap", "model", "combined")
    assert {older[system]["f1"] - newer[system]["f1"] for system in systems} == {0}
    largest = max(abs(older[system]["average_precision"] - newer[system]["average_precision"]) for system in systems)
    assert f"differ by {largest:.4f} at most".replace("0.", ".") in page


def test_the_page_of_use_shows_the_default_threshold():
    page, model = (ROOT / "docs/use.md").read_text(), read(ROOT / "metrics/evaluate.json")["model"]
    harmless = model["fp"] + model["tn"]
    shown = f"from {model['threshold']:.3f} on, and flags {model['fp']} of {harmless} harmless texts of test"
    assert shown in " ".join(page.split())


def test_the_page_on_the_curve_shows_its_json():
    page = (ROOT / "docs/recipes.md").read_text()
    for name, point in read(ROOT / figures.CURVE_OF_CASES)["sizes"].items():
        (row,) = re.findall(rf"^\| {int(name):,} \|(.*)\|$", page, re.MULTILINE)
        *values, model, combined = (cell.strip() for cell in row.split("|"))
        systems = ("baseline", "probe", "combined_cheap", "model", "combined")
        assert [float(value) for value in values] == pytest.approx(
            [point[system]["average_precision"] for system in systems], abs=0.00051
        )
        for cell, system in ((model, "model"), (combined, "combined")):
            shown = [float(number.replace("−", "-").lstrip("±")) for number in re.findall(r"[+−±]\.\d{3}", cell)]
            ends = [point["ahead"][system][f"average_precision{end}"] for end in figures.ENDS]
            assert shown == pytest.approx(ends, abs=0.00051)


def test_the_page_on_the_default_run_shows_harmless_texts_and_seeds():
    page = " ".join((ROOT / "docs/results.md").read_text().split())
    further = read(ROOT / "metrics/evaluate.json")["further"]["harmless"]
    alarms = {name: further[name]["fp"] for name in ("baseline", "probe", "combined_cheap", "model")}
    with open(ROOT / "metrics/plots/slices.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["set"] == "harmless" and row["by"] == "category"]
    kinds = {row["value"]: row for row in rows if row["system"] == "model"}
    shown = re.findall(
        r"and (\d+) of the (\d+) of `harmless`, .*?: (\d+) of (\d+) about verification codes, (\d+) of (\d+) about "
        r"telecoms and offices. Cheap systems flag (\d+) to (\d+)\.",
        page,
    )
    cheap = sorted(alarms[name] for name in ("baseline", "probe", "combined_cheap"))
    of_kinds = [int(kinds[kind][key]) for kind in ("验证码", "运营商与政务") for key in ("fp", "rows")]
    assert shown == [tuple(map(str, (alarms["model"], further["size"]["rows"], *of_kinds, cheap[0], cheap[-1])))]
    seeds = [run["test"] for run in read(RESULTS / "h200/flips.json")["runs"] if not run["flipped"] and "test" in run]
    means = [
        f"{statistics.mean(found):.3f} ± .{1000 * statistics.stdev(found):03.0f}"
        for found in ([seed[metric] for seed in seeds] for metric in ("average_precision", "f1"))
    ]
    assert f"| five seeds on an H200, model only: mean ± standard deviation | {' | '.join(means)} |" in page
    assert len(seeds) == 5
