"""What DVC's queue would trip over is reported before it starts."""

import dataclasses

import pytest

from stages import params
from stages.errors import UserError
from stages.seeds.experiments import require_queue
from tests.conftest import ROOT
from tests.pipeline.project import git


def chosen(**entry) -> params.Params:
    return dataclasses.replace(params.load(ROOT / "params.yaml"), dataset=params.Dataset(**entry))


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ({"pool": "data/raw/mine.jsonl"}, "data/raw/mine.jsonl"),
        ({"pool": ["data/sample/pool.jsonl", "data/raw/mine.jsonl"]}, "data/raw/mine.jsonl"),
        ({"dialogues": "data/raw/calls"}, "data/raw/calls"),
    ],
)
def test_raw_data_that_experiments_would_not_have_are_named(project, entry, path):
    with pytest.raises(UserError, match=f"`dvc add {path} && git add {path}.dvc`"):
        require_queue(chosen(**entry))
    (project / f"{path}.dvc").write_text("outs: []\n")
    with pytest.raises(UserError, match="git add"):
        require_queue(chosen(**entry))
    git(project, "add", f"{path}.dvc")
    require_queue(chosen(**entry))


def test_a_manifest_that_experiments_would_not_have_is_named(project):
    (project / "data/raw/mine.manifest").write_text("text,group,split,fold\n")
    entry = chosen(pool="data/sample/pool.jsonl")
    entry = dataclasses.replace(entry, prepare=dataclasses.replace(entry.prepare, manifest="data/raw/mine.manifest"))
    with pytest.raises(UserError, match="data/raw/mine.manifest: neither git nor DVC knows of it"):
        require_queue(entry)
    git(project, "add", "data/raw/mine.manifest")
    require_queue(entry)


def test_raw_data_that_git_or_a_folder_above_holds_are_no_problem(project):
    require_queue(chosen(pool="data/sample/pool.jsonl"))
    git(project, "add", "data/raw/mine.jsonl")
    require_queue(chosen(pool="data/raw/mine.jsonl"))
    git(project, "rm", "--quiet", "--cached", "data/raw/mine.jsonl")
    (project / "data/raw.dvc").write_text("outs: []\n")
    git(project, "add", "data/raw.dvc")
    require_queue(chosen(train="data/raw/mine.jsonl", valid="data/raw/calls/a b.csv", test="data/raw/mine.jsonl"))


@pytest.mark.parametrize(("name", "named"), [("项目", "目项"), ("a%41", "%"), ("nr#1 new", "#")])
def test_a_folder_in_which_the_queue_would_hang_is_named(project, monkeypatch, name, named):
    (project / name).mkdir()
    monkeypatch.chdir(project / name)
    with pytest.raises(UserError, match=f"{name}: DVC's queue fails or hangs .* holds {named} "):
        require_queue(chosen(pool="data/sample/pool.jsonl"))
    (project / "with space-1.0_x").mkdir()
    monkeypatch.chdir(project / "with space-1.0_x")
    require_queue(chosen(pool="data/sample/pool.jsonl"))
