"""dvc.yaml: its deps are complete, and a change reruns what it affects and nothing else."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stages import params
from stages.code import imported_files
from tests.conftest import ROOT
from tests.pipeline.project import commit, copy_project, git, run
from tools.deps import code_deps

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

# Stands in for a stage: writes each output from the bytes of the data that it depends on and from its params, but not
# from its code, as a stage does whose code changed in a comment only.
STAND_IN = """
import hashlib, pathlib, sys
import yaml
from stages.params import read_yaml

name = sys.argv[1]
raw = read_yaml(pathlib.Path("params.yaml"))
stages = yaml.safe_load(pathlib.Path("dvc.yaml").read_text())["stages"]

def paths(entries):
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]

def value(key):
    found = raw
    for part in key.replace("${method}", raw["method"]).replace("${model}", raw["model"]).replace(
        "${dataset}", raw["dataset"]).split("."):
        found = found[part]
    return found

digest = hashlib.sha256()
for dep in sorted(d for d in stages[name]["deps"] if not d.startswith("stages")):
    path = pathlib.Path(dep)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        digest.update(file.read_bytes() if file.is_file() else b"")
digest.update(repr([value(key) for key in stages[name].get("params", [])]).encode())
inside = {d for stage in stages.values() for d in stage["deps"]}
for out in paths(stages[name].get("outs", [])) + paths(stages[name].get("metrics", [])):
    files = [d for d in inside if d.startswith(out + "/")] or ([out] if "." in out else [out + "/file"])
    for file in map(pathlib.Path, files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('{"digest": "%s"}' % digest.hexdigest())
"""


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


RAW = '{"input": "text", "label": true}\n'
# One stage that reads a file of the user's; it fails where the file is missing or another.
READER = f"""
import json, pathlib
assert pathlib.Path("data/raw/mine.jsonl").read_text() == {RAW!r}
pathlib.Path("metrics/data.json").write_text(json.dumps({{"params": pathlib.Path("params.yaml").read_text()}}))
"""
KINDS = {
    "in the workspace": ["dvc exp run -S prepare.seed=7"],
    "in a folder of its own": ["dvc exp run --temp -S prepare.seed=7"],
    "in the queue": ["dvc exp run --queue -S prepare.seed=7,8", "dvc exp run --run-all"],
}
COPIED = ["dvc exp run --temp --copy-paths data/raw/mine.jsonl -S prepare.seed=7"]
ADDED = ["dvc add data/raw/mine.jsonl", "git add data/raw/mine.jsonl.dvc"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A project of the one stage, committed, with the user's file in data/raw."""
    folder = copy_project(tmp_path_factory.mktemp("reader"))
    (folder / "reader.py").write_text(READER)
    stage = {
        "cmd": "python reader.py",
        "deps": ["data/raw"],
        "params": ["prepare"],
        "metrics": [{"metrics/data.json": {"cache": False}}],
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"prepare": stage}}))
    commit(folder)
    (folder / "data/raw/mine.jsonl").write_text(RAW)
    return folder


@pytest.mark.parametrize(
    "commands",
    [*([*ADDED, *kind] for kind in KINDS.values()), KINDS["in the workspace"], COPIED],
    ids=[*(f"added, {kind}" for kind in KINDS), "not added, in the workspace", "not added, copied"],
)
def test_experiments_have_the_users_file_and_leave_it_where_it_is(reader, tmp_path, commands):
    folder = Path(shutil.copytree(reader, tmp_path / "project"))
    for command in commands:
        printed = run(folder, *command.split())
        assert "ERROR" not in printed, printed
    assert (folder / "data/raw/mine.jsonl").read_text() == RAW
    found = len(run(folder, "dvc", "exp", "list", "--name-only").split())
    assert found == (2 if "--run-all" in commands[-1] else 1)
    git(folder, "add", "--all")
    assert "data/raw/mine.jsonl" not in git(folder, "ls-files").splitlines()


def test_an_experiment_without_the_users_file_fails_and_leaves_the_file(reader, tmp_path):
    folder = Path(shutil.copytree(reader, tmp_path / "project"))
    with pytest.raises(AssertionError):
        run(folder, *KINDS["in a folder of its own"][0].split())
    assert (folder / "data/raw/mine.jsonl").read_text() == RAW


def test_what_dvc_writes_beside_raw_data_reruns_nothing(reader, tmp_path):
    folder = Path(shutil.copytree(reader, tmp_path / "project"))
    run(folder, "dvc", "repro")
    (folder / "data/raw/.gitignore").write_text("/mine.jsonl\n")
    assert "up to date" in run(folder, "dvc", "status")


@pytest.mark.parametrize("command", [["python", "-m", "stages.repro"], ["make", "repair"]])
def test_a_torn_lock_is_restored_and_nothing_reruns(reader, tmp_path, command):
    folder = Path(shutil.copytree(reader, tmp_path / "project"))
    (folder / ".venv").mkdir()
    (folder / ".venv/installed").touch()  # make uses the Python of the tests, and installs nothing
    run(folder, "python", "-m", "stages.repro")
    whole = (folder / "dvc.lock").read_bytes()
    (folder / "dvc.lock").write_bytes(whole[: len(whole) // 2])
    assert "the last whole one replaces it" in run(folder, *command)
    assert (folder / "dvc.lock").read_bytes() == whole
    assert "up to date" in run(folder, "dvc", "repro")


@pytest.mark.parametrize("name", ["a.jsonl", "sub/a.csv", "sub/deep/a.jsonl.gz", "表.xlsx"])
def test_git_ignores_raw_data_and_not_what_points_to_it(name):
    def ignored(path: str) -> bool:
        return not subprocess.run(["git", "check-ignore", "--quiet", "--no-index", path], cwd=ROOT).returncode

    assert ignored(f"data/raw/{name}")
    assert not ignored(f"data/raw/{name}.dvc")
    assert not ignored("data/raw/.gitignore")


AFTER_TRAIN = {"train", "select", "evaluate"}
KNOBS = {
    "a comment in params.yaml": ("params.yaml", "\n# a comment\n", set()),
    "learning rate": ("train.learning_rate", 5e-05, AFTER_TRAIN),
    "selection metric": ("select.metric", "loss", {"select", "evaluate"}),
    "evaluation batch": ("evaluate.max_tokens_per_batch", 1000, {"select", "evaluate"}),
    "split fraction": ("prepare.test_fraction", 0.25, {"prepare"} | AFTER_TRAIN),
    "further sets": ("evaluate.further_sets", {"a": "data/raw/a.jsonl"}, {"prepare"} | AFTER_TRAIN),
    "speakers": ("prepare.speakers", "remove", {"prepare"} | AFTER_TRAIN),
    "method": ("method", "lora", AFTER_TRAIN),
    "another method's block": ("methods.qlora.bnb_4bit_quant_type", "fp4", {"benchmark"}),
    "the method's block": ("methods.lora.dtype", "float32", {"benchmark"} | AFTER_TRAIN),
    "another model's block": ("models.qwen2.5-7b.license", "mit", set()),
    "another model": ("model", "qwen2-1.5b", set(STAGES)),
    "the model's block": ("models.qwen2-1.5b.revision", "0" * 40, set(STAGES)),
    "another data set's block": ("datasets.anti_fraud_cases.pool", "data/raw/other.jsonl", set()),
    "the prompt": ("prompt.instruction", "?", AFTER_TRAIN),
    "the longest text": ("prompt.max_length", 256, {"prepare"} | AFTER_TRAIN),
    "the benchmark": ("benchmark.repeats", 1, {"benchmark"}),
    "the sample's texts": ("data/sample/pool.jsonl", "\n", {"prepare"} | AFTER_TRAIN),
    "the code of fetch": ("stages/fetch/sources.py", "# a comment\n", {"fetch"}),
    "the code of prepare": ("stages/prepare/split.py", "# a comment\n", {"prepare"}),
    "the code of benchmark": ("stages/benchmark/weights.py", "# a comment\n", {"benchmark"}),
    "the code of train": ("stages/train/trainer.py", "# a comment\n", {"train"}),
    "the code of select": ("stages/select/checkpoint.py", "# a comment\n", {"select"}),
    "the code of evaluate": ("stages/evaluate/compare.py", "# a comment\n", {"evaluate"}),
    "the code of predict": ("stages/predict/read.py", "# a comment\n", set()),
    "the model card": ("stages/classifier/card.py", "# a comment\n", {"select"}),
    "how a command starts": ("stages/command.py", "# a comment\n", set()),
    "the memory formula": ("stages/plan/memory.py", "# a comment\n", set()),
    "a benchmark": ("benchmarks/scaling.py", "# a comment\n", set()),
    "a maintainer's tool": ("tools/deps.py", "# a comment\n", set()),
    "a page": ("docs/use.md", "\n", set()),
    "reading files of texts": ("stages/data/jsonl.py", "# a comment\n", {"prepare"}),
    "the code of text": ("stages/text/prompt.py", "# a comment\n", {"fetch", "prepare"} | AFTER_TRAIN),
    "the code of model": ("stages/model/load.py", "# a comment\n", {"benchmark"} | AFTER_TRAIN),
    "the code of metrics": ("stages/metrics.py", "# a comment\n", {"prepare"} | AFTER_TRAIN),
    "the code of params": ("stages/params.py", "# a comment\n", set(STAGES)),
    "the tests and the README": ("README.md", "\n", set()),
}


@pytest.mark.parametrize("knob", KNOBS)
def test_a_change_reruns_what_it_affects(reproduce, knob):
    folder, repro = reproduce
    where, change, expected = KNOBS[knob]  # in order: each starts from where the one before left the params
    if (folder / where).suffix in (".py", ".md", ".yaml", ".jsonl") and (folder / where).is_file():
        with (folder / where).open("a", encoding="utf-8") as file:
            file.write(change)
    else:
        raw = params.read_yaml(folder / "params.yaml")
        *path, last = where.split(".")
        section = raw
        for key in path:
            section = section[key]
        assert section[last] != change
        section[last] = change
        (folder / "params.yaml").write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    assert repro() == expected
    assert repro() == set()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_deps_are_the_code_that_it_imports_file_by_file(stage):
    deps = [dep for dep in STAGES[stage]["deps"] if dep.startswith("stages")]
    assert deps == code_deps(stage), "run `python -m tools.deps`"


def test_the_code_of_a_module_is_what_python_loads():
    """Against the interpreter: what a fresh process has loaded after the import, but for functions' own imports."""
    code = "import sys, stages.evaluate.__main__; print(*(m.__file__ for n, m in sys.modules.items() if 'stages' in n))"
    loaded = {Path(file).relative_to(ROOT).as_posix() for file in run(ROOT, sys.executable, "-c", code).split()}
    assert loaded - {"stages/command.py"} == set(imported_files("stages.evaluate.__main__"))


@pytest.mark.parametrize("stage", STAGES)
def test_git_ignores_what_dvc_stores_and_no_metric(stage):
    for out in STAGES[stage].get("outs", []) + STAGES[stage].get("metrics", []):
        path, options = (out, {}) if isinstance(out, str) else next(iter(out.items()))
        named = path if "." in path.rpartition("/")[2] else f"{path}/"
        ignored = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", named], cwd=ROOT).returncode == 0
        assert ignored == (options.get("cache", True) or path == "models/base")
