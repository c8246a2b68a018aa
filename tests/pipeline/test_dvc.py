"""dvc.yaml: its deps are complete, and a change reruns what it affects and nothing else."""

import re
import subprocess

import pytest
import yaml

from stages import params
from stages.verify.pipeline import REPRO
from tests.conftest import ROOT
from tests.faults import project
from tests.pipeline.project import STAND_IN, copy_project, run

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.fixture(scope="module")
def reproduce(tmp_path_factory):
    """A copy whose stages are stand-ins: the folder, and a function that runs `dvc repro` and names what ran."""
    folder = copy_project(tmp_path_factory.mktemp("stand-ins"))
    (folder / "stand_in.py").write_text(STAND_IN)
    text = (folder / "dvc.yaml").read_text(encoding="utf-8")
    (folder / "dvc.yaml").write_text(
        re.sub(r"python -m stages\.(\w+)", r"python stand_in.py \1", text), encoding="utf-8"
    )

    def repro() -> set[str]:
        return set(re.findall(r"Running stage '(\w+)'", run(folder, "dvc", "repro")))

    assert repro() == set(STAGES)
    assert repro() == set()
    return folder, repro


@pytest.mark.parametrize("name", ["a.jsonl", "sub/a.csv", "sub/deep/a.jsonl.gz", "表.xlsx"])
def test_git_ignores_raw_data_and_not_what_points_to_it(name):
    def ignored(path: str) -> bool:
        return not subprocess.run(["git", "check-ignore", "--quiet", "--no-index", path], cwd=ROOT).returncode

    assert ignored(f"data/raw/{name}")
    assert not ignored(f"data/raw/{name}.dvc")
    assert not ignored("data/raw/.gitignore")


@pytest.mark.parametrize(
    ("path", "status"), [("data/raw/runs/a.jsonl", 1), ("data/raw/.venv/a.jsonl", 1), ("runs/a", 0)]
)
def test_dvc_sees_raw_data_whatever_its_folder_is_called(path, status):
    assert subprocess.run(["dvc", "check-ignore", "--quiet", path], cwd=ROOT).returncode == status


AFTER_TRAIN = {"train", "select", "evaluate", "report", "folds"}
AFTER_PROBE = {"probe", "select", "evaluate", "report", "folds"}
AFTER_PREPARE = AFTER_TRAIN | AFTER_PROBE
# A file and what is appended to it, or a key of params.yaml and its value; and the stages that then run. No row needs
# another one to have come before it.
KNOBS = {
    "a comment in params.yaml": ("params.yaml", "\n# a comment\n", set()),
    "learning rate": ("train.learning_rate", 5e-05, AFTER_TRAIN),
    "selection metric": ("select.metric", "loss", {"select", "evaluate", "report", "folds"}),
    "evaluation batch": ("evaluate.max_tokens_per_batch", 1000, AFTER_PROBE),
    "split fraction": ("prepare.test_fraction", 0.3, {"prepare"} | AFTER_PREPARE),
    "further sets": ("evaluate.further_sets", {"a": "data/raw/a.jsonl"}, {"prepare"} | AFTER_PREPARE),
    "speakers": ("prepare.speakers", "remove", {"prepare"} | AFTER_PREPARE),
    "method": ("method", "lora", AFTER_PREPARE),
    "another method's block": ("methods.lora-int8.dtype", "float32", {"benchmark"}),
    "the method's block": ("methods.${method}.dtype", "float32", {"benchmark"} | AFTER_PREPARE),
    "another model's block": ("models.qwen2.5-7b.license", "mit", set()),
    "another model": ("model", "qwen2-1.5b", set(STAGES)),
    "the model's block": ("models.${model}.license", "other", set(STAGES)),
    "another data set's block": ("datasets.anti_fraud_cases.pool", "data/raw/other.jsonl", set()),
    "the data set's columns": ("datasets.${dataset}.columns", {"group": "group"}, {"prepare"} | AFTER_PREPARE),
    "another data set's columns": ("datasets.anti_fraud_cases.columns", {"group": "group"}, set()),
    "the bands of verify": ("verify.bands", {"model": {"f1": 0.1}}, set()),
    "the prompt": ("prompt.instruction", "?", AFTER_PREPARE),
    "the longest text": ("prompt.max_length", 256, {"prepare"} | AFTER_PREPARE),
    "the benchmark": ("benchmark.repeats", 1, {"benchmark"}),
    "the sample's texts": ("data/sample/pool.jsonl", "\n", {"prepare"} | AFTER_PREPARE),
    "the code of fetch": ("stages/fetch/sources.py", "# a comment\n", {"fetch"}),
    "what a probe is": ("stages/classifier/probe.py", "# a comment\n", {"probe", "select", "evaluate"}),
    "the code of prepare": ("stages/prepare/split.py", "# a comment\n", {"prepare"}),
    "the code of benchmark": ("stages/benchmark/weights.py", "# a comment\n", {"benchmark"}),
    "the code of train": ("stages/train/trainer.py", "# a comment\n", {"train"}),
    "the code of probe": ("stages/probe/fit.py", "# a comment\n", {"probe"}),
    "the system in use": ("select.system", "best", {"select", "evaluate", "report", "folds"}),
    "the code of select": ("stages/select/checkpoint.py", "# a comment\n", {"select"}),
    "the code of evaluate": ("stages/evaluate/compare.py", "# a comment\n", {"evaluate", "folds"}),
    "the code of predict": ("stages/predict/read.py", "# a comment\n", set()),
    "the code of report": ("stages/report/verdict.py", "# a comment\n", {"report"}),
    "the page's looks": ("stages/serve/page/base.css", "/* a comment */\n", {"report"}),
    "the code of folds": ("stages/folds/scores.py", "# a comment\n", {"folds"}),
    "the code of collect": ("stages/collect/experiments.py", "# a comment\n", set()),
    "the model's out-of-fold scores": ("data/folds/README.md", "\n", {"folds", "report"}),
    "the model card": ("stages/classifier/card.py", "# a comment\n", {"select"}),
    "how a command starts": ("stages/command.py", "# a comment\n", set()),
    "the memory formula": ("stages/plan/memory.py", "# a comment\n", set()),
    "a benchmark": ("benchmarks/scaling.py", "# a comment\n", set()),
    "a maintainer's tool": ("tools/deps.py", "# a comment\n", set()),
    "a page": ("docs/use.md", "\n", set()),
    "reading files of texts": ("stages/data/jsonl.py", "# a comment\n", {"prepare"}),
    "the code of text": ("stages/text/prompt.py", "# a comment\n", {"fetch"} | AFTER_PREPARE - {"report"}),
    "the code of model": ("stages/model/load.py", "# a comment\n", {"benchmark"} | AFTER_PREPARE - {"report"}),
    "the code of metrics": ("stages/metrics.py", "# a comment\n", {"prepare"} | AFTER_PREPARE - {"report"}),
    "the code of params": ("stages/params.py", "# a comment\n", set(STAGES)),
    "the tests and the README": ("README.md", "\n", set()),
}


@pytest.mark.slow
@pytest.mark.parametrize("knob", KNOBS)
def test_a_change_reruns_what_it_affects(reproduce, knob):
    folder, repro = reproduce
    where, change, expected = KNOBS[knob]
    if (folder / where).suffix in (".py", ".md", ".yaml", ".jsonl", ".css") and (folder / where).is_file():
        with (folder / where).open("a", encoding="utf-8") as file:
            file.write(change)
    else:
        raw = params.read_yaml(folder / "params.yaml")
        for name in ("method", "model", "dataset"):
            where = where.replace(f"${{{name}}}", raw[name])
        *path, last = where.split(".")
        section = raw
        for key in path:
            section = section[key]
        assert section.get(last) != change
        section[last] = change
        (folder / "params.yaml").write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    assert repro() == expected
    assert repro() == set()


@pytest.mark.slow
@pytest.mark.parametrize(("section", "key", "change"), [("train", "seed", 3), ("prepare", "test_fraction", 0.31)])
def test_params_that_were_there_before_train_nothing(reproduce, section, key, change):
    folder, repro = reproduce
    before = (folder / "params.yaml").read_bytes()
    raw = params.read_yaml(folder / "params.yaml")
    raw[section][key] = change
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    assert "train" in repro()
    (folder / "params.yaml").write_bytes(before)
    again = repro()  # the others come from DVC's run cache
    assert again == {"select", "evaluate", "folds", "report"} | ({"prepare"} if section == "prepare" else set())
    assert repro() == set()


@pytest.mark.slow
def test_what_verify_runs_takes_nothing_from_a_cache(reproduce):
    folder, repro = reproduce
    repro()
    assert repro() == set()
    printed = run(folder, *REPRO, "--force", "report")
    assert set(re.findall(r"Running stage '(\w+)'", printed)) == set(STAGES) - {"benchmark"}


def test_the_fault_tests_know_all_stages():
    """They run in no CI."""
    assert sorted(project.STAGES) == sorted(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_git_ignores_what_dvc_stores_and_no_metric(stage):
    for out in STAGES[stage].get("outs", []) + STAGES[stage].get("metrics", []):
        path, options = (out, {}) if isinstance(out, str) else next(iter(out.items()))
        named = path if "." in path.rpartition("/")[2] else f"{path}/"
        ignored = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", named], cwd=ROOT).returncode == 0
        assert ignored == (options.get("cache", True) or path == "models/base")
