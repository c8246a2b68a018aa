"""make same finds what differs; make lock renews hashes where nothing else changed; the table of exports is current."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pipeline.project import commit, copy_project, git, run
from tools import exports, lock, same

# Stands in for every stage: writes a constant of stages/metrics.py, and train its states, which it resumes from.
STAGE = """
import json, pathlib, sys, time
from stages.metrics import CONSTANT, RESUMABLE

name = pathlib.Path(sys.argv[0]).stem
if name == "train":
    state = pathlib.Path("runs/train/run")
    resumed = state.exists()
    for step in () if resumed else (1, 2, 3):
        (state / f"state-{step}").mkdir(parents=True)
        time.sleep(0.2)
    for file in ("models/checkpoints/adapter.csv", "metrics/plots/train.csv", "metrics/plots/valid.csv"):
        pathlib.Path(file).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(file).write_text(f"step\\n{int(resumed and not RESUMABLE)}\\n")
pathlib.Path("metrics").mkdir(exist_ok=True)
values = {"constant": CONSTANT, "measured": {"seconds": time.time()}, "rows": {"per_second": 1, "a_per_second": time.time()}}
pathlib.Path(f"metrics/{name}.json").write_text(json.dumps(values))
"""  # noqa: E501
CONSTANTS = "CONSTANT = 15\nRESUMABLE = True\n"


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def verdicts(tmp_path: Path, old: dict[str, str], new: dict[str, str]) -> dict[str, tuple[str, str]]:
    sides = write(tmp_path / "old", old), write(tmp_path / "new", new)
    return {row.file: (row.verdict, row.why) for row in same.compare_folders(*sides, same.WRITTEN)}


def test_files_are_compared_by_bytes(tmp_path):
    old = {"data/processed/a.jsonl": "x\ny\n", "models/b/c": "1\0002", "predicted.jsonl": "z\n", "elsewhere": "1"}
    new = {"data/processed/a.jsonl": "x\nz\n", "models/b/c": "1\0003", "predicted.jsonl": "z\n", "elsewhere": "2"}
    assert verdicts(tmp_path, old, new) == {
        "data/processed/a.jsonl": ("differs", "line 2: 'y' | 'z'"),
        "models/b/c": ("differs", "from byte 2 on, of 3 | 3"),
        "predicted.jsonl": ("same", ""),
    }


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"a\n", b"a\nb\n", "line 2: nothing | 'b'"),
        (b"", b"a", "line 1: nothing | 'a'"),
        (b"a\nb", b"a\nb\n", "the end of line 2"),
        (b"a\r\nb\n", b"a\nb\n", "line 1: 'a\\r' | 'a'"),
        (b"x" * 50 + b"1", b"x" * 50 + b"2", "line 1: 'xxxxxxxxxx1' | 'xxxxxxxxxx2'"),
    ],
)
def test_the_first_difference_is_shown(old, new, expected):
    assert same.first_difference(old, new) == expected


def test_a_file_of_one_side_differs_and_prose_is_left_out(tmp_path):
    card = "models/selected/README.md"
    found = verdicts(tmp_path, {card: "old", "models/a": ""}, {card: "new", "models/b": ""})
    assert found == {
        card: ("left out", "prose: the model card"),
        "models/a": ("differs", "only REV writes it"),
        "models/b": ("differs", "only OTHER writes it"),
    }


def metrics(seconds: float, rows: int, **more: object) -> str:
    values = {"measured": {"seconds": seconds}, "model": {"samples_per_second": seconds, "rows": rows}}
    return json.dumps(values | more)


def test_metrics_are_compared_without_timings(tmp_path):
    old = {"metrics/a.json": metrics(1, 5), "metrics/b.json": metrics(1, 5), "models/c.json": metrics(1, 5)}
    new = {"metrics/a.json": metrics(2, 5), "metrics/b.json": metrics(2, 6), "models/c.json": metrics(2, 5)}
    found = verdicts(tmp_path, old, new)
    assert found["metrics/a.json"] == ("same", "without measured, samples_per_second")
    assert found["metrics/b.json"] == ("differs", "model.rows: 5 | 6")
    assert found["models/c.json"][0] == "differs"


def test_a_value_of_another_type_or_of_one_side_differs():
    def why(old: dict, new: dict) -> str:
        return same.compare_json("metrics/a.json", json.dumps(old).encode(), json.dumps(new).encode()).why

    assert why({"a": 1}, {"a": 1.0}) == "a: 1 | 1.0"
    assert why({"a": 1}, {"a": True}) == "a: 1 | True"
    assert why({"a": {}}, {}) == "a: {} | nothing"
    assert why({}, {"a": {"b": None}}) == "a.b: nothing | None"


def test_renamed_paths_and_keys_are_compared_under_their_new_names(tmp_path, monkeypatch):
    monkeypatch.setitem(same.RENAMED_PATHS, "metrics/old", "metrics/new")
    monkeypatch.setitem(same.RENAMED_KEYS, "metrics/new/a.json", {"model.rows": "model.texts"})
    old = {"metrics/old/a.json": json.dumps({"model": {"rows": 5, "tokens": 7}})}
    new = {"metrics/new/a.json": json.dumps({"model": {"texts": 5, "tokens": 7}})}
    assert verdicts(tmp_path, old, new) == {"metrics/new/a.json": ("same", "by value")}


def test_a_revision_has_the_first_rows_of_each_file_of_the_sample(tmp_path):
    rows = [f'{{"input": "{n}"}}\n' for n in range(same.SAMPLE_ROWS + 1)]
    write(tmp_path, {same.SAMPLE[0]: "".join(rows), same.SAMPLE[1]: "a\n"})
    same.cut_sample(tmp_path)
    assert (tmp_path / same.SAMPLE[0]).read_text() == "".join(rows[:-1])
    assert (tmp_path / same.SAMPLE[1]).read_text() == "a\n"


def test_what_is_not_compared_exists():
    assert [name for name in lock.NOT_COMPARED if not (ROOT / name).exists()] == []


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A committed project whose stages are stand-ins; it is the working directory."""
    files = {f"stages/{name}.py": STAGE for name in (*same.STAGES, "predict")}
    folder = write(tmp_path / "project", files | {"stages/metrics.py": CONSTANTS, "params.yaml": "model: other\n"})
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(same, "make_base", lambda base, pool: base.mkdir())
    return folder


@pytest.mark.parametrize(
    ("constants", "differing"),
    [
        (CONSTANTS + "# a comment\n", set()),
        (CONSTANTS.replace("15", "16"), {f"metrics/{name}.json" for name in (*same.STAGES, "predict")}),
        (CONSTANTS.replace("True", "False"), {"training killed and resumed"}),
    ],
    ids=["a comment", "a constant", "a training that can't be resumed"],
)
def test_a_changed_constant_is_found_and_a_comment_is_not(stand_in, tmp_path, constants, differing, capsys):
    (stand_in / "stages/metrics.py").write_text(constants)
    rows = same.compare_revisions("HEAD", None, tmp_path / "work")
    assert {row.file for row in rows if row.verdict == "differs"} == differing
    assert f"{len(rows) - len(differing)} same, {len(differing)} differs, 0 left out" in capsys.readouterr().out


def test_a_stage_that_fails_is_shown_with_what_it_printed(stand_in, tmp_path):
    (stand_in / "stages/select.py").write_text("raise SystemExit('no checkpoint')")
    with pytest.raises(same.CompareError, match="other: select ended with status 1:\nno checkpoint"):
        same.compare_revisions("HEAD", None, tmp_path / "work")


def test_an_unknown_revision_is_an_error_of_one_line(stand_in, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["same", "nowhere"])
    with pytest.raises(SystemExit) as ended:
        same.main()
    assert ended.value.code == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.slow
def test_the_real_stages_differ_by_a_planted_constant_and_nothing_else(tmp_path):
    """The number of calibration bins: adapters, splits, scores and thresholds are the same without it."""
    folder = copy_project(tmp_path / "project")
    code = (folder / "stages/metrics.py").read_text(encoding="utf-8")
    assert "CALIBRATION_BINS = 10" in code
    (folder / "stages/metrics.py").write_text(code.replace("CALIBRATION_BINS = 10", "CALIBRATION_BINS = 9") + "# !\n")
    command = [sys.executable, "-m", "tools.same", "HEAD"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [line.split(maxsplit=2) for line in done.stdout.splitlines() if line.startswith(("data/", "m", "p", "tr"))]
    differing = {row[0] for row in rows if row[1] == "differs"}
    # The calibration error may be 0 with any number of bins, since what chance adds is subtracted. Not of all systems.
    may_differ = {f"metrics/{name}.json" for name in ("data", "select", "folds")} | {"models/selected/selected.json"}
    may_differ |= {f"metrics/plots/reliability/{name}.csv" for name in ("model", "model_before")}
    assert {"metrics/evaluate.json"} <= differing <= {"metrics/evaluate.json"} | may_differ
    assert len(rows) > 50


STEP = """
import pathlib, sys
for name in sys.argv[1:]:
    pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(name).write_text(name)
"""
PIPELINE = """
stages:
  prepare:
    cmd: python step.py data/processed/train.jsonl
    deps: [stages/metrics.py, stages/prepare, data/sample]
    params: [dataset]
    outs: [data/processed]
  train:
    cmd: python step.py models/checkpoints/adapter metrics/train.json
    deps:
      - stages/train
      - stages/metrics.py
      - data/processed/train.jsonl
    params: [train]
    outs: [models/checkpoints]
    metrics: [{metrics/train.json: {cache: false}}]
"""


@pytest.fixture(scope="module")
def locked_project(tmp_path_factory):
    """A small pipeline that has run by its committed code, as a fresh clone has it: without the outputs."""
    code = {f"stages/{name}.py": f"# {name}\n" for name in ("metrics", "prepare/a", "train/a", "train/b")}
    files = {"step.py": STEP, "dvc.yaml": PIPELINE, "params.yaml": "dataset: sample\ntrain: {lora_alpha: 32}\n"}
    folder = write(tmp_path_factory.mktemp("ran") / "project", code | files | {same.SAMPLE[0]: "{}\n"})
    git(folder, "init", "--quiet", "--initial-branch=main")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "repro")
    commit(folder)
    clone = tmp_path_factory.mktemp("locked") / "project"
    git(folder, "clone", "--quiet", ".", str(clone))
    return clone


@pytest.fixture
def locked(locked_project, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(locked_project, tmp_path / "locked"))
    monkeypatch.chdir(folder)
    return folder


def append(file: Path, text: str) -> None:
    with file.open("a", encoding="utf-8") as opened:
        opened.write(text)


def require_up_to_date(folder: Path) -> None:
    """Commits all, and lets DVC look at a fresh clone."""
    commit(folder)
    clone = folder.parent / "clone"
    git(folder, "clone", "--quiet", ".", str(clone))
    assert "Data and pipelines are up to date." in run(clone, "dvc", "repro", "--dry", "--allow-missing")


def test_lock_compares_with_the_code_that_dvc_lock_was_written_by(locked, monkeypatch, capsys):
    written_by = git(locked, "rev-list", "-1", "HEAD", "--", lock.CODE).strip()
    compared = []
    monkeypatch.setattr(lock, "compare_revisions", lambda *sides: compared.append(sides[:2]) or [same.Row("a", "same")])
    append(locked / "stages/metrics.py", "# a comment\n")
    commit(locked)
    append(locked / "stages/metrics.py", "# another\n")
    before = (locked / lock.LOCK).read_text(encoding="utf-8").splitlines()
    lock.renew(skip_same=False)
    after = (locked / lock.LOCK).read_text(encoding="utf-8").splitlines()
    assert compared == [(written_by, None)]
    changed = [line.strip().partition(":")[0] for line, old in zip(after, before, strict=True) if line != old]
    assert set(changed) == {"md5", "size"}
    assert len(changed) == 2 * len([line for line in before if line == "    - path: stages/metrics.py"])
    require_up_to_date(locked)
    lock.renew(skip_same=False)
    assert "already holds the hashes" in capsys.readouterr().out
    assert len(compared) == 1


def test_lock_stays_where_the_code_writes_other_bytes(locked, monkeypatch):
    monkeypatch.setattr(lock, "compare_revisions", lambda *_: [same.Row("a", "differs")])
    append(locked / "stages/metrics.py", "# a comment\n")
    before = (locked / lock.LOCK).read_bytes()
    with pytest.raises(lock.LockError, match="writes other bytes"):
        lock.renew(skip_same=False)
    assert (locked / lock.LOCK).read_bytes() == before


def test_lock_wants_a_look_at_what_the_comparison_does_not_run(locked, monkeypatch):
    append(locked / "stages/metrics.py", "# a comment\n")
    monkeypatch.setattr(lock, "NOT_COMPARED", ("stages/metrics.py",))
    monkeypatch.setattr(lock, "require_same", lambda commit: None)
    before = (locked / "dvc.lock").read_bytes()
    with pytest.raises(lock.LockError, match=r"does not run stages/metrics\.py.*--reviewed"):
        lock.renew(skip_same=False)
    assert (locked / "dvc.lock").read_bytes() == before
    lock.renew(skip_same=False, reviewed=True)
    assert (locked / "dvc.lock").read_bytes() != before


def test_lock_follows_folders_split_into_files_and_renamed_files(locked, capsys):
    git(locked, "mv", "stages/train/a.py", "stages/train/c.py")
    replace(locked / "dvc.yaml", "      - stages/train\n", "      - stages/train/c.py\n      - stages/train/b.py\n")
    lock.renew(skip_same=True)
    assert "WARNING: nothing was compared" in capsys.readouterr().out
    paths = [dep["path"] for dep in lock.load_yaml(lock.LOCK)["stages"]["train"]["deps"]]
    assert paths == ["data/processed/train.jsonl", "stages/metrics.py", "stages/train/b.py", "stages/train/c.py"]
    require_up_to_date(locked)


def test_lock_writes_what_dvc_writes(locked):
    append(locked / "stages/metrics.py", "# a comment\n")
    lock.renew(skip_same=True)
    renewed = (locked / lock.LOCK).read_bytes()
    run(locked, "dvc", "repro", "--force")
    assert (locked / lock.LOCK).read_bytes() == renewed


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda folder: append(folder / same.SAMPLE[0], "\n"), "data/sample"),
        (lambda folder: shutil.rmtree(folder / "data/sample"), "data/sample"),
        (lambda folder: write(folder, {"data/processed/train.jsonl": "{}"}), "data/processed/train.jsonl"),
        (lambda folder: replace(folder / "dvc.yaml", "/train.jsonl\n    params", "\n    params"), "data/processed"),
        (lambda folder: replace(folder / "params.yaml", "32", "16"), "train"),
        (lambda folder: replace(folder / "dvc.yaml", "[dataset]", "[dataset, train]"), "train"),
        (lambda folder: replace(folder / "dvc.yaml", "checkpoints/adapter", "checkpoints/other"), "cmd"),
        (lambda folder: replace(folder / "dvc.yaml", "[models/checkpoints]", "[models/a]"), "models/a"),
        (lambda folder: write(folder, {"stages/train/new.py": ""}), "git does not track stages/train/new.py"),
        (lambda folder: (folder / "stages/metrics.py").unlink(), "lists stages/metrics.py"),
    ],
    ids=[
        "data",
        "data gone",
        "output",
        "other dep",
        "param",
        "more params",
        "command",
        "other output",
        "untracked",
        "missing",
    ],
)
def test_lock_refuses_what_needs_a_run(locked, change, named):
    append(locked / "stages/metrics.py", "# a comment\n")
    change(locked)
    before = (locked / lock.LOCK).read_bytes()
    with pytest.raises(lock.LockError, match=named):
        lock.renew(skip_same=True)
    assert (locked / lock.LOCK).read_bytes() == before


def test_the_table_of_exports_is_that_of_the_results():
    page = (ROOT / exports.PAGE).read_text(encoding="utf-8")
    results = json.loads((ROOT / exports.RESULTS).read_text(encoding="utf-8"))
    assert exports.with_table(page, results) == page
    changed = json.loads(json.dumps(results).replace('"decisions_changed": ', '"decisions_changed": 1'))
    assert exports.with_table(page, changed) != page
