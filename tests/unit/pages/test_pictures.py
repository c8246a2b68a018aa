"""The pictures of the pages show the committed figures."""

import json
import re
import xml.etree.ElementTree as ET

import pytest

from tests.conftest import ROOT
from tests.unit.pages.committed import COMMITTED, RESULTS, read
from tools import figures

pytestmark = COMMITTED
SVG = "{http://www.w3.org/2000/svg}"


def words_of(name):
    """The texts of a picture, in the order in which it holds them."""
    return [text.text for text in ET.parse(ROOT / figures.IMAGES / name).iter(f"{SVG}text")]


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
