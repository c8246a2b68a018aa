"""The stage as a whole: its fingerprint, its prompt, and what it says of params."""

import pytest
import torch

from stages import params
from stages.artifacts import read_json
from stages.text.example import write_examples
from stages.train import __main__ as train_stage
from stages.train import build
from stages.train.arguments import report_replaced
from stages.train.resume import PROGRESS_FILE
from tests.unit.train.trainers import At, Killed, kill


def test_params_that_a_method_replaces_are_reported(changed, capsys):
    report_replaced(params.load(changed({"method": "qlora-gpu"})))
    assert "train: train.learning_rate is 0.0004, by methods.qlora-gpu.train\n" in capsys.readouterr().out
    report_replaced(params.load(changed({"method": "qlora"})))
    assert not capsys.readouterr().out


def test_the_fingerprint_is_of_all_that_a_result_depends_on(tmp_path, monkeypatch, base_folder, changed):
    (tmp_path / "data/processed").mkdir(parents=True)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/base").symlink_to(base_folder)
    for name in ("train", "valid"):
        (tmp_path / f"data/processed/{name}.jsonl").write_text(name)
    monkeypatch.chdir(tmp_path)

    def of(changes):
        changed(changes)
        return train_stage.fingerprint(train_stage.params.load(), torch.device("cpu"))

    plain = of({})
    assert plain == of({}) == of({"train/save_steps": 0.2}) == of({"evaluate/errors_listed": 1})
    others = [of({"train/learning_rate": 1e-5}), of({"method": "lora"}), of({"prompt/max_length": 99})]
    (tmp_path / "data/processed/train.jsonl").write_text("other")
    assert len({plain, *others, of({})}) == 5


def test_a_training_resumed_after_midnight_keeps_its_prompt(
    tmp_path,
    monkeypatch,
    dated_base,
    changed,
    examples,
    capsys,
):
    """The chat template writes the time; killed and resumed, the training and later stages have the first one's."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/base").symlink_to(dated_base)
    for name, rows in (("train", examples[:32]), ("valid", examples[32:])):
        write_examples(tmp_path / f"data/processed/{name}.jsonl", rows)
    changed(
        {
            "method": "lora", "train/num_train_epochs": 1, "train/eval_steps": 2, "train/save_steps": 1,
            "train/per_device_train_batch_size": 8,
        }
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    trainer = build.LabelTrainer

    def killed_at_step_2(*arguments):
        made = trainer(*arguments)
        made.add_callback(At(2, kill))
        return made

    monkeypatch.setattr(build, "LabelTrainer", killed_at_step_2)
    with pytest.raises(Killed):
        train_stage.main()
    (state,) = tmp_path.glob("runs/train/*/state-1")
    first = read_json(state / PROGRESS_FILE)["prompt"]
    monkeypatch.setattr(build, "LabelTrainer", trainer)
    train_stage.main()
    assert read_json(tmp_path / "models/checkpoints/prompt.json") == first
    assert "writes the date" in capsys.readouterr().out
    trained_on = read_json(tmp_path / "models/train.json")["environment"]
    monkeypatch.setattr("stages.model.device.cpu_name", lambda: "another CPU")
    train_stage.main()
    assert "holds this training, finished: nothing is trained again" in capsys.readouterr().out
    assert read_json(tmp_path / "models/train.json")["environment"] == trained_on
