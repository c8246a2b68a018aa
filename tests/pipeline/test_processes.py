"""Two processes train and evaluate as one does: same batches, same losses, each text scored once, one writer."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.scaling import with_efficiency
from stages import params
from stages.artifacts import read_csv, read_json, write_json
from tests.pipeline.project import copy_project, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes need two GPUs, or none"),
]
TWO = ["env", "NPROC=2", "python", "-m"]
ONE_OF_A_SCRIPT = ["env", "PYTHONPATH=.", "python"]
# A process that waits for another's pass would wait for ever.
TWO_OF_A_SCRIPT = ["timeout", "600", "torchrun", "--standalone", "--nproc-per-node=2", "--no-python", *ONE_OF_A_SCRIPT]


@pytest.fixture(scope="module")
def project(tmp_path_factory, base_folder):
    folder = copy_project(tmp_path_factory.mktemp("processes"))
    raw = params.read_yaml(folder / "params.yaml")
    raw["models"]["tiny"] = {"source": "folder", "path": str(base_folder)}
    raw["model"], raw["method"] = "tiny", "lora"
    raw["methods"]["lora"] = {"dtype": "float32"}
    raw["datasets"]["sample"] = {"pool": "data/sample/pool.jsonl"}  # the smaller of its two files
    raw["train"] |= {"num_train_epochs": 1, "per_device_train_batch_size": 7, "eval_steps": 0.5, "learning_rate": 5e-3}
    raw["train"] |= {"save_steps": 5, "logging_steps": 3}
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, allow_unicode=True, sort_keys=False), encoding="utf-8")
    for stage in ("fetch", "prepare"):
        run(folder, "python", "-m", f"stages.{stage}")
    return folder


@pytest.fixture(scope="module")
def two(project, tmp_path_factory):
    """A copy in which two processes have worked; `project` itself was worked on by one."""
    folder = tmp_path_factory.mktemp("two") / "copy"
    shutil.copytree(project, folder)
    run(folder, *TWO, "stages.probe")
    run(folder, *TWO, "stages.train")
    for stage in ("probe", "train", "select", "evaluate"):
        run(project, "python", "-m", f"stages.{stage}")
    shutil.copytree(project / "models/selected", folder / "models/selected")  # rounding parts the two adapters a little
    run(folder, *TWO, "stages.evaluate")
    return folder


def test_the_losses_are_the_same(project, two):
    for name, columns in (("train.csv", ("loss", "grad_norm")), ("valid.csv", ("loss",))):
        one, other = (read_csv(folder / "metrics/plots" / name) for folder in (project, two))
        assert [row["step"] for row in one] == [row["step"] for row in other]
        for column in columns:
            expected = [float(row[column]) for row in one]
            tolerance = {"abs": 1e-5, "rel": 0} if column == "loss" else {"rel": 1e-4}
            assert [float(row[column]) for row in other] == pytest.approx(expected, **tolerance)
    # Not average precision: two texts whose scores are equal but for rounding may change places, and it jumps.
    scores = [sorted(folder.glob("models/checkpoints/*/valid_scores.csv")) for folder in (project, two)]
    assert len(scores[0]) == len(scores[1]) == 2
    for paths in zip(*scores, strict=True):
        one, other = ([float(row["log_odds"]) for row in read_csv(path)] for path in paths)
        assert other == pytest.approx(one, abs=1e-3, rel=0)
    state = next(iter(two.glob("runs/train/*/state-*")))
    assert {file.name for file in state.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}  # two there were
    facts = [read_json(folder / "models/train.json")["facts"] for folder in (project, two)]
    assert facts[0] == facts[1]


def test_each_text_is_scored_once_and_the_metrics_are_those_of_one_process(project, two):
    one, other = (read_csv(folder / "data/predictions/test.csv") for folder in (project, two))
    assert [row["source"] for row in one] == [row["source"] for row in other]
    # Before calibration: its slope for this model, which knows nothing, is in the hundreds.
    scores = [[float(row["model_log_odds"]) for row in rows] for rows in (one, other)]
    assert scores[1] == pytest.approx(scores[0], abs=2e-6)
    models = [read_json(folder / "metrics/evaluate.json")["model"] for folder in (project, two)]
    assert models[1]["average_precision"] == pytest.approx(models[0]["average_precision"], abs=1e-6)
    assert (models[1]["tp"], models[1]["fp"]) == (models[0]["tp"], models[0]["fp"])


def test_the_probe_is_that_of_one_process(project, two):
    for name in ("train", "valid", "test", "zero_shot/train", "zero_shot/test"):
        one, other = (
            [float(row["log_odds"]) for row in read_csv(folder / f"data/probe/{name}.csv")] for folder in (project, two)
        )
        assert other == pytest.approx(one, abs=1e-2)
    chosen = [read_json(folder / "models/probe.json") for folder in (project, two)]
    assert [each["layer"] for each in chosen] == [chosen[0]["layer"]] * 2


def test_two_processes_classify_new_texts_as_one_does(project, two):
    for folder, launcher in ((project, ("python", "-m")), (two, TWO)):
        (folder / "new.jsonl").write_text(
            '{"input": "转账"}\n{"input": "天气好"}\n{"input": "您好"}\n', encoding="utf-8"
        )
        run(folder, *launcher, "stages.predict", "--file", "new.jsonl", "--out", "classified.jsonl")
    one, other = (
        [json.loads(line) for line in (folder / "classified.jsonl").read_text(encoding="utf-8").splitlines()]
        for folder in (project, two)
    )
    for key in ("probability", "log_odds"):  # batches differ, so the last digits may
        values = [[row.pop(key) for row in rows] for rows in (one, other)]
        assert values[1] == pytest.approx(values[0], abs=1e-9)
    assert one == other


VERDICTS = """
from pathlib import Path
import torch
from transformers import GenerationConfig
import stages.evaluate.generate
from stages.distributed import rank
from stages.model.scoring import label_scores
from stages.classifier.trained import load_selected

def verdict_of(answer):  # a tiny model writes no JSON
    return (None, False, True)[sum(map(ord, answer)) % 3]

def ending_early(**settings):  # so that batches take different numbers of passes
    return GenerationConfig(**settings | {"eos_token_id": list(range(0, 2000, 9))})

stages.evaluate.generate.parse_verdict = verdict_of
stages.evaluate.generate.GenerationConfig = ending_early
model, prompt, _ = load_selected()
torch.manual_seed(0)
for name, parameter in model.named_parameters():
    if "lora_" in name:  # so that each text is answered in another way
        parameter.data.normal_(std=0.3)
texts = [f"第{number}条：转账{'吗' * number}" for number in range(17)]
found = stages.evaluate.generate.generate_verdicts(model, prompt, texts, 2, 40)
scores = label_scores(model, prompt, texts, 4096, "all").log_odds
few = label_scores(model, prompt, texts[:1], 4096, "fewer texts than processes").log_odds
assert abs(few - scores[:1]).max() < 1e-4 < abs(scores[1:] - scores[0]).min(), (few, scores)
Path(f"written.by.{rank()}").write_text(repr(found))
"""


def written_by_each(folder, script, *launcher):
    """What each process of a script wrote, in a file of its own, since two may mix up what they print."""
    for old in folder.glob("written.by.*"):
        old.unlink()
    (folder / "script.py").write_text(script)
    run(folder, *launcher, "script.py")
    return [file.read_text() for file in folder.glob("written.by.*")]


def test_every_process_gets_all_written_answers(project, two):
    """The first of two processes has one text and one batch of answers more; a single text is its alone."""
    (alone,) = written_by_each(project, VERDICTS, *ONE_OF_A_SCRIPT)
    assert all(word in alone for word in ("None", "False", "True"))
    assert written_by_each(two, VERDICTS, *TWO_OF_A_SCRIPT) == [alone, alone]


OUT_OF_MEMORY_ONCE = """
import torch
from stages.distributed import rank
from stages.train import __main__
from stages.train.passes import Passes

forward_backward, calls = Passes.forward_backward, []

def out_of_memory_once(self, *inputs):
    calls.append(inputs)
    if rank() == 1 and len(calls) == 4:
        raise torch.OutOfMemoryError("as a GPU would say")
    return forward_backward(self, *inputs)

Passes.forward_backward = out_of_memory_once
__main__.main()
"""


def trained_by_two(project, tmp_path_factory, script):
    """A copy of the project in which two processes of a script have trained, and what they printed."""
    folder = tmp_path_factory.mktemp("trained") / "copy"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("runs", "checkpoints", "train.csv"))
    (folder / "script.py").write_text(script)
    return folder, run(folder, *TWO_OF_A_SCRIPT, "script.py")


def test_memory_that_runs_out_in_one_process_does_not_affect_the_other(project, two, tmp_path_factory):
    folder, printed = trained_by_two(project, tmp_path_factory, OUT_OF_MEMORY_ONCE)
    assert printed.count("batches are now cut into 2 micro-batches") == 1
    losses = [[float(row["loss"]) for row in read_csv(each / "metrics/plots/train.csv")] for each in (project, folder)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5, rel=0)


GRADIENTS_IN_ONE_TENSOR = """
import torch
from stages.model.cuda_graphs import CapturedPasses
from stages.train import __main__
from stages.train.captured_gradients import CapturedGradients
from stages.train.passes import Passes

if not torch.cuda.is_available():
    CapturedPasses.__init__ = lambda self, compute, device: setattr(self, "inputs", {"any": {}})
    CapturedPasses.__call__ = lambda self, inputs: self.loss_and_gradients(inputs)

def prepare(self, checkpointing):
    self.captured = CapturedGradients(self.packed_loss, self.parameters)

Passes.prepare = prepare
__main__.main()
"""


def test_gradients_that_lie_in_one_tensor_are_added_up_over_processes(project, two, tmp_path_factory):
    """By CUDA graphs on GPUs, else by plain passes in their place."""
    folder, _ = trained_by_two(project, tmp_path_factory, GRADIENTS_IN_ONE_TENSOR)
    rows = [read_csv(each / "metrics/plots/train.csv") for each in (project, folder)]
    for column, tolerance in (("loss", {"abs": 1e-5, "rel": 0}), ("grad_norm", {"rel": 1e-4})):
        one, other = ([float(row[column]) for row in each] for each in rows)
        assert other == pytest.approx(one, **tolerance)


RATES = """
import sys
from pathlib import Path
from stages.distributed import rank
from benchmarks import scaling

scaling.WARM_UP, scaling.WARM_UP_STEPS, scaling.WINDOWS, scaling.WINDOW = 0, 4, 3, 2
sys.argv = ["scaling", "1,2", "7", "4", scaling.MEASURE, "rates.json"]
scaling.main()
Path(f"written.by.{rank()}").write_text("ended")
"""


def test_throughput_of_two_processes_is_for_the_work_of_one(project, two):
    blocks = {}
    for number, folder, launcher in (("1", project, ONE_OF_A_SCRIPT), ("2", two, TWO_OF_A_SCRIPT)):
        assert written_by_each(folder, RATES, *launcher) == ["ended"] * int(number)
        blocks[number] = read_json(folder / "rates.json")
    whole = with_efficiency(blocks)
    for name in ("train 7", "train 4", "evaluate"):
        one, other = whole["1"][name], whole["2"][name]
        assert other["compared"] == pytest.approx(one["compared"], abs=1e-4)
        assert one["samples_per_second_min"] <= one["samples_per_second"] <= one["samples_per_second_max"]


SHARE_HELD = """
from pathlib import Path
from stages.distributed import rank
from torch.distributed.tensor import DTensor
from stages import params
from stages.model.lora import attach_adapter
from stages.model.load import load_base
from stages.model.fsdp import shard_layers

chosen = params.load()
model = shard_layers(attach_adapter(load_base(chosen.method), chosen.train), chosen.method)
split = [parameter for parameter in model.parameters() if isinstance(parameter, DTensor)]
matrices = sum(name.endswith("base_layer.weight") for name, parameter in model.named_parameters())
assert len(split) >= matrices > 0
held = sum(p.to_local().numel() for p in split) / sum(p.numel() for p in split)
Path(f"written.by.{rank()}").write_text(str(held))
"""


@pytest.mark.parametrize(("load_in_4bit", "checkpointing"), [(True, True), (False, False)])
def test_sharded_layers_are_the_same_model(project, tmp_path_factory, load_in_4bit, checkpointing):
    """Two batches a step; activations checkpointed, or not, where layers are sharded."""
    folders = {}
    for residency in ("quantized", "sharded"):
        folder = folders[residency] = tmp_path_factory.mktemp(residency) / "copy"
        shutil.copytree(project, folder, ignore=shutil.ignore_patterns("runs", "checkpoints", "selected"))
        raw = params.read_yaml(folder / "params.yaml")
        raw["methods"]["lora"] = {"dtype": "float32", "load_in_4bit": load_in_4bit, "residency": residency}
        raw["train"] |= {
            "gradient_accumulation_steps": 2,
            "gradient_checkpointing": checkpointing and residency == "sharded",
        }
        (folder / "params.yaml").write_text(yaml.safe_dump(raw, allow_unicode=True, sort_keys=False), encoding="utf-8")
    one, two = folders.values()
    for stage in ("probe", "train", "select", "evaluate"):
        run(one, "python", "-m", f"stages.{stage}")
    held = written_by_each(two, SHARE_HELD, *TWO_OF_A_SCRIPT)
    assert list(map(float, held)) == [pytest.approx(0.5, abs=0.01)] * 2
    run(two, *TWO, "stages.train")
    shutil.copytree(one / "models/selected", two / "models/selected")
    record = two / "models/selected/selected.json"
    write_json(record, read_json(record) | {"method": raw["methods"]["lora"]})
    for stage in ("probe", "evaluate"):
        run(two, *TWO, f"stages.{stage}")

    losses = [[float(row["loss"]) for row in read_csv(folder / "metrics/plots/train.csv")] for folder in (one, two)]
    assert len(losses[0]) > 3
    assert losses[1] == pytest.approx(losses[0], abs=1e-5, rel=0)
    for column in ("model_log_odds", "zero_shot_log_odds"):
        scores = [
            [float(row[column]) for row in read_csv(folder / "data/predictions/test.csv")] for folder in (one, two)
        ]
        assert scores[1] == pytest.approx(scores[0], abs=2e-6)
    alone = written_by_each(one, VERDICTS, *ONE_OF_A_SCRIPT)
    assert written_by_each(two, VERDICTS, *TWO_OF_A_SCRIPT) == alone * 2


def test_two_machines_that_share_a_disk(project, two, tmp_path_factory):
    folder = tmp_path_factory.mktemp("machines") / "copy"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("runs", "checkpoints", "train.csv"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = ["--master-addr", "127.0.0.1", "--master-port", str(free.getsockname()[1])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    launchers = [
        subprocess.Popen(
            ["torchrun", "--nnodes", "2", "--node-rank", str(number), *address, "-m", "stages.train"],
            cwd=folder,
            env=environment | {"CUDA_VISIBLE_DEVICES": str(number)},  # a machine's own
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for number in range(2)
    ]
    assert [launcher.wait(timeout=180) for launcher in launchers] == [0, 0]
    losses = [[float(row["loss"]) for row in read_csv(each / "metrics/plots/train.csv")] for each in (project, folder)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5, rel=0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_to_one_process_ends_the_run_which_resumes_later(project, two, number):
    shutil.rmtree(two / "models/checkpoints", ignore_errors=True)
    for training in (two / "runs/train").iterdir():
        shutil.rmtree(training)
    command = ["env", "NPROC=2", sys.executable, "-m", "stages.train"]
    with (two / "log").open("w") as log:
        launched = subprocess.Popen(command, cwd=two, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 600
        while not list(two.glob("runs/train/*/state-*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert time.monotonic() < deadline  # or there is nothing to resume from
        children = subprocess.run(["pgrep", "-P", str(launched.pid)], capture_output=True, text=True).stdout.split()
        subprocess.run(["kill", f"-{number.value}", children[-1]], check=True)
        assert launched.wait(timeout=60) != 0
    all_heard = (two / "log").read_text().count(f"stopped by signal {signal.SIGTERM.value} at step")
    assert all_heard == (2 if number == signal.SIGTERM else 0)
    assert not (two / "models/checkpoints").exists()
    assert "resumes from" in run(two, *TWO, "stages.train")
    for name in ("train.csv", "valid.csv"):
        one, other = (read_csv(folder / "metrics/plots" / name) for folder in (project, two))
        losses = [[float(row["loss"]) for row in rows] for rows in (one, other)]
        assert losses[1] == pytest.approx(losses[0], abs=1e-5, rel=0)
