"""`make report`: which figures it reports."""

import json
import shutil

import pytest

from stages.errors import UserError
from stages.params_file import read_yaml
from stages.report.here import require_present_params
from tests.conftest import ROOT


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A project that ran with the params that it has."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    raw = read_yaml(tmp_path / "params.yaml")
    read = {
        "benchmark": {"methods": raw["methods"]},
        "train": {"train": raw["train"], "methods.qlora": raw["methods"]["qlora"]},
        "select": {key: raw[key] for key in ("dataset", "select")},
        "report": {"evaluate": raw["evaluate"], "gone": None},
    }
    stages = {name: {"cmd": name, "params": {"params.yaml": values}} for name, values in read.items()}
    (tmp_path / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))
    monkeypatch.chdir(tmp_path)


def test_params_of_the_run_pass_and_those_of_the_benchmark_do_not_matter(ran, changed):
    require_present_params()
    changed({"methods/lora/dtype": "float32"})
    require_present_params()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"select/threshold": "min_cost"}, "select is not what it was when stage select"),
        ({"train/learning_rate": 3e-6}, "train is not what it was when stage train"),
        ({"methods/qlora": None}, "methods.qlora is not what it was when stage train"),
        ({"evaluate/equivalence_margin": 0.5}, "evaluate is not what it was when stage report"),
        ({"dataset": "anti_fraud_cases"}, "dataset is not what it was when stage select"),
    ],
)
def test_params_that_were_changed_since_are_named(ran, changed, change, key):
    changed(change)
    with pytest.raises(UserError, match=f"params.yaml: {key} ran, by dvc.lock"):
        require_present_params()


def test_without_a_lock_there_is_nothing_to_compare_with(ran, tmp_path, changed):
    (tmp_path / "dvc.lock").unlink()
    changed({"select/threshold": "min_cost"})
    require_present_params()
