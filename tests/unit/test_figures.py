"""The pictures of the pages show the committed figures."""

import csv
import itertools
import json
import re
import statistics
import subprocess
import xml.etree.ElementTree as ET

import pytest

from tests.conftest import ROOT
from tools import figures

# After `make repro` metrics/ holds this machine's figures; pages and pictures show those of the commit.
OWN_RUN = bool(
    subprocess.run(["git", "status", "--porcelain", "--", "metrics"], cwd=ROOT, stdout=subprocess.PIPE).stdout
)
pytestmark = pytest.mark.skipif(OWN_RUN, reason="metrics/ holds figures that are not committed")

RESULTS = ROOT / figures.RESULTS
SVG = "{http://www.w3.org/2000/svg}"


def words_of(name):
    """The texts of a picture, in the order in which it holds them."""
    return [text.text for text in ET.parse(ROOT / figures.IMAGES / name).iter(f"{SVG}text")]


def read(path):
    return json.loads(path.read_text())


def differences(file, *keys):
    part = read(file)
    for key in keys:
        part = part[key]
    return part["difference"]["average_precision"]


def test_the_pictures_are_those_that_make_figures_draws(monkeypatch):
    monkeypatch.chdir(ROOT)
    drawn = figures.pictures()
    assert drawn == {path.name: path.read_text() for path in (ROOT / figures.IMAGES).glob("*.svg")}


@pytest.mark.parametrize("name", ["difference.svg", "difference.zh-CN.svg"])
def test_differences_are_those_of_the_json(name):
    shown = [words for words in words_of(name) if re.fullmatch(r"[+−]0\.\d{3,4}", words)]
    h200, seeds = RESULTS / "h200", (1, 2, 3)
    cases = h200 / "anti_fraud_cases"
    nameless = [cases / f"names_removed/seed-{seed}/evaluate.json" for seed in seeds]
    named = [cases / f"names_kept/seed-{seed}/evaluate.json" for seed in seeds]
    minus = [h200 / f"anti_fraud_sft_minus/seed-{seed}/evaluate.json" for seed in seeds]
    leaky = [h200 / f"anti_fraud_sft_leaky/seed-{seed}/evaluate.json" for seed in seeds]
    expected = [
        *map(differences, [*nameless, *named]),
        *(differences(file, "further", "teleantifraud") for file in [*nameless, *named]),
        *map(differences, [*minus, *leaky]),
    ]
    numbers = [float(words.replace("−", "-")) for words in shown]
    assert numbers[0] == pytest.approx(differences(ROOT / "metrics/evaluate.json"), abs=0.0005)
    assert numbers[1:] == pytest.approx(expected, abs=0.00005)


@pytest.mark.parametrize("name", ["speed.svg", "speed.zh-CN.svg"])
def test_rates_and_memory_are_those_of_the_json(name):
    words = words_of(name)
    race = read(RESULTS / "race.json")
    rows = [words[i : i + 2] for i, shown in enumerate(words) if re.fullmatch(r"[\d.]+ \[[\d.]+, [\d.]+\]", shown)]
    small, large = ["article", "trl_tuned", "unsloth", "memory", "speed"], ["trl_tuned_64", "unsloth_64", "speed_64"]
    for recipe, (rates, peak) in zip([*small, *large, "generate", "score"], rows, strict=True):
        expected = [race[recipe][f"samples_per_second{end}"] for end in ("", "_min", "_max")]
        assert [float(rate) for rate in re.findall(r"[\d.]+", rates)] == pytest.approx(expected, rel=0.005, abs=0.05)
        assert float(peak) == pytest.approx(race[recipe]["peak_allocated_bytes"] / 1e9, abs=0.05)


@pytest.mark.parametrize("name", ["memory.svg", "memory.zh-CN.svg"])
def test_memory_of_a_step_is_that_of_the_json(name):
    shown = [float(found[1]) for words in words_of(name) if (found := re.match(r"([\d.]+) Q?LoRA", words))]
    measured = read(RESULTS / "memory_map.json")
    keys = ["lora-32", "qlora-32", "lora-32-checkpointed", "qlora-32-checkpointed"]
    expected = [measured[shape][key]["peak"] / 1e9 for shape in ("qwen2-1.5b", "qwen2-7b") for key in keys]
    assert shown == pytest.approx(expected, abs=0.05)


def curve_shown(words):
    """Texts of train, and the differences of the model and of the combination, as a picture shows them."""
    counts = [int(word) for word in words if word.isdigit() and word != "0"]  # which is a line of the axis
    shown = [float(word.replace("−", "-")) for word in words if re.fullmatch(r"[+−]\.\d{3}", word)]
    return counts, shown[: len(counts)], shown[len(counts) :]


def curve_of(report):
    points = sorted(report["sizes"].values(), key=lambda point: point["train"]["rows"])
    ahead = [[point["ahead"][name]["average_precision"] for point in points] for name in ("model", "combined")]
    return [point["train"]["rows"] for point in points], *(pytest.approx(values, abs=0.00051) for values in ahead)


def some_curve(sizes, bounds=True):
    """A report of `make curve` in which the model overtakes the others."""

    def block(value):
        ends = {"average_precision_low": value - 0.03, "average_precision_high": value + 0.02} if bounds else {}
        return {"average_precision": value} | ends

    points = {}
    for number, rows in enumerate(sizes):
        values = {"baseline": 0.8 + 0.02 * number, "probe": 0.79, "combined_cheap": 0.81, "model": 0.7 + 0.05 * number}
        values["combined"] = values["model"] + 0.04
        ahead = {name: block(values[name] - values["baseline"]) for name in ("model", "combined")}
        points[str(rows)] = {"train": {"rows": rows}, "ahead": ahead} | {name: block(v) for name, v in values.items()}
    return {"folds": 5, "sizes": points}


@pytest.mark.parametrize("sizes", [[1600, 200, 400, 800], [197]])
@pytest.mark.parametrize("bounds", [True, False])
def test_a_curve_shows_the_differences_of_its_json(tmp_path, monkeypatch, sizes, bounds):
    report = some_curve(sizes, bounds)
    (tmp_path / "curve.json").write_text(json.dumps(report))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(figures, "CURVE", tmp_path / "curve.json")
    drawn = figures.pictures()
    for name in ("curve.svg", "curve.zh-CN.svg"):
        picture = ET.fromstring(drawn[name])
        words = [text.text for text in picture.iter(f"{SVG}text")]
        assert curve_shown(words) == curve_of(report)
        last = max(report["sizes"].values(), key=lambda point: point["train"]["rows"])
        named = [float(word.split()[0]) for word in words if re.match(r"\.\d{3} ", word)]
        systems = ("baseline", "probe", "combined_cheap", "model", "combined")
        expected = sorted((last[system]["average_precision"] for system in systems), reverse=True)
        assert named == pytest.approx(expected, abs=0.00051)
        _, _, width, height = map(float, picture.get("viewBox").split())
        places = [
            tuple(map(float, pair.split(",")))
            for line in picture.iter(f"{SVG}polyline")
            for pair in line.get("points").split()
        ]
        assert all(0 < x < width and 0 < y < height for x, y in places)


@pytest.mark.parametrize("name", ["curve_cases.svg", "curve_cases.zh-CN.svg"])
def test_the_published_curve_shows_the_differences_of_its_json(name):
    assert curve_shown(words_of(name)) == curve_of(read(ROOT / figures.CURVE_OF_CASES))


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
        yield f"| {name} | {' | '.join(cells)} |"


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
        yield f"| {part} | {' | '.join(cells)} |"


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


def test_the_page_on_the_server_shows_its_json():
    page = (ROOT / "docs/serve.md").read_text()
    found = [read(RESULTS / "serving.json")[name] for name in ("default-h200", "default-amd")]
    shares = [f"{each['best_share_of_offline']:.0%}".replace("%", " %") for each in found]
    assert f"{shares[0]} of the offline rate on the H200, and to {shares[1]} on the CPU" in page
    assert "within {:.1f} and {:.1f} times".format(*(each["p99_at_half_in_batches"] for each in found)) in page
    assert (
        "| offline | {:.0f} texts/s | | {:.1f} texts/s | |".format(*(o["offline_texts_per_second"] for o in found))
        in page
    )
    for share in ("0.25", "0.50", "0.90", "1.25"):
        cells = []
        for each, digits in zip(found, (0, 1), strict=True):
            rate = each["rates"][share]
            cells += [
                f"{rate['texts_per_second']:.{digits}f}",
                f"{rate['p50_seconds']:.1f} s, {rate['p99_seconds']:.1f} s",
            ]
        assert f"| {float(share):g} | {' | '.join(cells)} |" in page


def test_the_table_and_the_ratios_of_the_race_are_those_of_its_json():
    page, race = " ".join((ROOT / "docs/performance.md").read_text().split()), read(RESULTS / "race.json")
    blocks = {name: block for name, block in race.items() if name != "ratios"}
    for block in blocks.values():
        keys = ("samples_per_second", "samples_per_second_min", "samples_per_second_max")
        rate, low, high = (f"{block[key]:.0f}" if block[key] >= 100 else f"{block[key]:.1f}" for key in keys)
        cells = (
            f"| {rate} [{low}, {high}] | {100 * block['model_flop_utilization']:.1f} % "
            f"| {block['peak_allocated_bytes'] / 1e9:.1f} | {block['peak_reserved_bytes'] / 1e9:.1f} "
            f"| {block['seconds_to_first_step']:.0f} |"
        )
        assert cells in page
    ratios = {
        f"{name} over {other}": blocks[name]["samples_per_second"] / blocks[other]["samples_per_second"]
        for name, other in itertools.permutations(blocks, 2)
    }
    assert (
        f"trains {ratios['speed over article']:.0f} times as many texts a second as the article's recipe and "
        f"{ratios['speed over unsloth']:.0f} times as many as Unsloth. With 64 texts a step it trains "
        f"{ratios['speed_64 over unsloth_64']:.1f} times as many as Unsloth and "
        f"{ratios['speed_64 over trl_tuned_64']:.1f} times as many as a tuned TRL. Profile `memory` trains "
        f"{ratios['memory over article']:.0f} times as many as the article's recipe in "
        f"{100 * race['ratios']['memory_peak_over_article']:.0f} % of its allocated memory."
    ) in page
    assert f"{ratios['speed over plain']:.0f} times" in (ROOT / "docs/gpu.md").read_text()
    for name in ("README.md", "README.zh-CN.md"):
        text = (ROOT / name).read_text()
        times, first, last = "{:.0f} {:.0f} {:.0f}".format(
            *(ratios[pair] for pair in ("speed over article", "speed_64 over unsloth_64", "speed over unsloth"))
        ).split()
        part = f"{100 * race['ratios']['memory_peak_over_article']:.0f} %"
        english = f"is {times} times as fast", f"{first} to {last} times Unsloth", f"takes {part} of its memory"
        chinese = f"文章做法的 {times} 倍、Unsloth 的 {first} 到 {last} 倍", f"文章做法 {part} 的显存"
        assert all(words in text for words in (english if name == "README.md" else chinese))


def test_the_train_stage_beside_a_stock_trainer_is_that_of_its_json():
    page, found = " ".join((ROOT / "docs/performance.md").read_text().split()), read(RESULTS / "stage.json")
    memory = {name: found[name]["peak_memory_bytes"] / 1e9 for name in ("stage", "stock")}
    times = f"{found['stock_over_stage']:.1f} times as long in {memory['stock'] / memory['stage']:.1f} times the memory"
    assert times in page
    assert f"Both took {found['steps']} steps" in page
    for row, name in (("train stage", "stage"), ("stock Trainer, no checkpointing, no dropout", "stock")):
        assert f"| {row} | {found[name]['seconds']:.0f} | {memory[name]:.1f} |" in page


def test_the_page_of_levers_shows_its_json():
    page = " ".join((ROOT / "docs/performance.md").read_text().split())
    levers = read(RESULTS / "h100/levers.json")
    for name, begin in (
        ("single_16", "16 texts a step, single adapters"),
        ("single_64", "64 texts a step, single adapters"),
        ("fused_16", "the same, fused"),
        ("fused_64", "the same, fused"),
    ):
        block = levers["training_qwen2_1.5b"][name]
        kernels = block["kernel_milliseconds"]
        row = (
            f"| {begin} | {block['milliseconds']:.1f} | {kernels['products']:.1f} | {kernels['launched']:,} "
            f"| {spread(block)} | {block['peak_allocated_gb']:.1f} |"
        )
        assert row in page
        assert sum(kernels.values()) - kernels["launched"] == pytest.approx(block["milliseconds"], abs=0.01)
    training = levers["training_qwen2_1.5b"]
    slow, fast = (training[name]["seconds_to_first_step"] for name in ("fused_16", "single_16"))
    assert f"took {min(slow):.0f} to {max(slow):.0f} s here, and {fast[0]:.0f} s before" in page
    for name in ("speed_64", "memory_64"):
        block = levers["race_64"][name]
        keys = ("samples_per_second", "samples_per_second_min", "samples_per_second_max")
        assert "{:.0f} [{:.0f}, {:.0f}]".format(*(block[key] for key in keys)) in page
        assert f"{block['peak_allocated_bytes'] / 1e9:.1f} GB" in page
    gemma = levers["scoring_gemma_3_270m"]
    for block, row in (
        (levers["scoring_qwen2_1.5b"], "Qwen2-1.5B, merged, 32,768"),
        (gemma["qlora_4096"], "Gemma-3-270m, `qlora`, 4,096"),
        (gemma["qlora_dequantized_4096"], "Gemma-3-270m, merged, 4,096"),
        (gemma["qlora_dequantized_32768"], "Gemma-3-270m, merged, 32,768"),
    ):
        fast = spread(block["speed"]) if "Qwen2" in row else f"{block['speed']['samples_per_second'][-1]:,}"
        seconds = [block[profile]["milliseconds"] / 1000 for profile in ("plain", "speed")]
        cells = f"| {row} | {spread(block['plain'])} | {fast} | {seconds[0]:.2f} → {seconds[1]:.2f} |"
        assert cells in page
    served = " ".join((ROOT / "docs/serve.md").read_text().split())
    pool = gemma["sample_pool"]
    assert f"scored {pool['speed']:,.0f} texts/s where `plain` scored {pool['plain']:.0f}" in served


def spread(block: dict) -> str:
    """Slowest and fastest window of a block."""
    return f"{min(block['samples_per_second']):,} to {max(block['samples_per_second']):,}"


def test_the_table_of_gpus_is_that_of_its_json():
    page, scaling = " ".join((ROOT / "docs/multi-gpu.md").read_text().split()), read(RESULTS / "scaling.json")
    one = scaling["1"]
    for name in ("train 256", "train 128", "train 64", "train 16", "evaluate"):
        cells = ["evaluate (scoring)" if name == "evaluate" else f"{name.replace(' ', ', ')} texts a step"]
        for number in ("1", "2", "4"):
            block = scaling[number][name]
            low, high = (block[f"samples_per_second_{end}"] for end in ("min", "max"))
            cells.append(f"{block['samples_per_second']:.0f} [{low:.0f}, {high:.0f}]")
            if number != "1":
                worst = low / one[name]["samples_per_second_max"] / int(number)
                best = high / one[name]["samples_per_second_min"] / int(number)
                cells.append(f"{block['efficiency']:.2f} [{worst:.2f}, {best:.2f}]".replace("0.", "."))
        peaks = [scaling[number][name].get("peak_memory_bytes", 0) / 1e9 for number in ("1", "2", "4")]
        cells.append("; ".join(f"{peak:.1f}" for peak in peaks) if any(peaks) else "")
        assert " ".join(f"| {' | '.join(cells)} |".split()) in page
    found = read(RESULTS / "h200/predict_gpus.json")
    rows = found["rows"]["to"] - found["rows"]["from"]
    seconds = [found["seconds"][number] for number in ("1", "2", "4")]
    one_gpu, two, four = (rows / each for each in seconds)
    assert (
        "about {:,}, {:,} and {:,} texts a second".format(*(round(rate, -2) for rate in map(int, (one_gpu, two, four))))
        in page
    )
    assert f"{rows:,} of the texts after warm-up, in {seconds[0]}, {seconds[1]} and {seconds[2]} s" in page
    assert f"(efficiency {two / one_gpu / 2:.2f} and {four / one_gpu / 4:.2f})".replace("0.", ".") in page


def test_the_table_of_sharded_layers_is_that_of_its_json():
    page = (ROOT / "docs/multi-gpu.md").read_text()
    measured = read(RESULTS / "sharded.json")["qwen2-7b"] | read(RESULTS / "h200/sharded_4gpus.json")["qwen2-7b"]
    for method, title in (("lora", "LoRA bf16"), ("qlora-dq", "QLoRA, double quant.")):
        for checkpointed in ("", ", checkpointed"):
            cells = [title + ", checkpointing" * bool(checkpointed)]
            for number in (1, 2, 4):
                block = measured[f"{method}, {number} process(es){checkpointed}"]
                rank = block["ranks"]["0"]
                peak = f"{rank['peak'] / 1e9:.1f}" if "peak" in rank else "out of memory"
                seconds = f"; {rank['seconds']:.2f} s" if "peak" in rank else ""
                cells.append(f"{peak} ({block['predicted_peak'] / 1e9:.1f}){seconds}")
            assert f"| {' | '.join(cells)} |" in page


def test_the_tables_of_long_texts_and_of_loading_are_those_of_their_json():
    page = (ROOT / "docs/performance.md").read_text()
    for tokens, blocks in read(RESULTS / "h200/long_texts.json").items():
        for name, block in blocks.items():
            rates = [block[key] * int(tokens) for key in ("samples_per_second_min", "samples_per_second_max")]
            cells = [
                {"speed_lora": "LoRA bf16", "speed_nf4": "QLoRA, NF4"}[name.rpartition("_")[0]],
                f"{int(tokens):,}",
                str(block["batch"]),
                f"{block['tokens_per_second']:,.0f} [{rates[0]:,.0f}, {rates[1]:,.0f}]",
                f"{block['flops_per_second'] / 1e12:.0f}",
                f"{block['peak_allocated_bytes'] / 1e9:.1f}",
            ]
            assert f"| {' | '.join(cells)} |" in page
    for shape, blocks in read(RESULTS / "h200/loading.json").items():
        for name, block in blocks.items():
            if name == "environment":
                continue
            measured = block["measured"]
            method = "`qlora`, saved in 4 bits before" if name == "qlora-prequantized" else f"`{name}`"
            cells = [
                shape.rpartition("-")[2].upper(),
                method,
                f"{block['facts']['weight_bytes'] / 1e9:.2f}",
                f"{measured['peak_bytes'] / 1e9:.2f}",
                f"{measured['load_seconds_cold']:.1f}",
                f"{measured['load_seconds_warm']:.1f}",
                f"{block['facts']['quantization_error']:.4f}",
                f"{measured['forward_tokens_per_second']:,.0f}",
            ]
            assert f"| {' | '.join(cells)} |" in page


def test_the_table_of_smaller_cards_is_that_of_its_json():
    page = (ROOT / "docs/gpu.md").read_text()
    for card in read(RESULTS / "h200/cards_end_to_end.json"):
        stages, rate = card["stages"], card["training_samples_per_second"]
        memory = [
            f"{stages[name]['peak_allocated_bytes'] / 1e9:.1f} ({stages[name]['peak_reserved_bytes'] / 1e9:.1f})"
            for name in ("train", "evaluate")
        ]
        assert max(block["peak_reserved_bytes"] for block in stages.values()) <= card["gb"] * 1e9 - 0.5e9
        seconds = sum(block["seconds"] for name, block in stages.items() if name != "prepare")
        cells = [
            f"{card['gb']:.0f} GB",
            card["shape"].rpartition("-")[2].upper(),
            f"`{card['method']}`, `{card['profile']}`",
            str(card["batch"]),
            *memory,
            f"{rate:.1f}",
            f"{20000 / rate / 60:.0f}",
            f"{seconds:.0f}",
        ]
        assert f"| {' | '.join(cells)} |" in page


def test_the_table_of_profile_memory_is_that_of_its_json():
    page = (ROOT / "docs/performance.md").read_text()
    found = read(RESULTS / "h200/memory_profile.json")
    for name, title in (
        ("checkpointed", "16 texts a step, torch's checkpointing around plain layers"),
        ("budget_0", "the same, layers compiled with an activation budget of 0"),
        ("budget_0.2", "with a budget of .2 of the activations"),
        ("budget_0_64", "64 texts a step, budget of 0"),
    ):
        block = found[name]
        rate, low, high = (round(block[f"samples_per_second{end}"]) for end in ("", "_min", "_max"))
        gigabytes, seconds = block["peak_allocated_bytes"] / 1e9, block["seconds_to_first_step"]
        assert f"| {title} | {rate} [{low}, {high}] | {gigabytes:.2f} | {seconds:.0f} |" in page


def test_the_table_of_trainings_by_several_gpus_is_that_of_its_json():
    page, runs = (ROOT / "docs/multi-gpu.md").read_text(), read(RESULTS / "h200/gpus.json")["runs"]
    for number, word in ((1, "one"), (2, "two"), (4, "four")):
        of_number = sorted((run for run in runs if run["gpus"] == number), key=lambda run: run["seed"])
        assert [run["seed"] for run in of_number] == [1, 2, 3]
        precisions = [run["valid"]["average_precision"] for run in of_number]
        figures = [f"{value:.4f}".removeprefix("0") for value in (*precisions, sum(precisions) / 3)]
        peak = max(run["peak_memory_bytes"] for run in of_number) / 1e9
        assert f"| {' | '.join([word, *figures, f'{peak:.1f}'])} |" in page
    fast = read(RESULTS / "h200/rank.json")["fast merged"]
    text = f"rank correlation {fast['spearman']:.5f}, mean difference {fast['mean']:.3f}".replace(" 0.", " .")
    assert text in " ".join((ROOT / "docs/performance.md").read_text().split())
