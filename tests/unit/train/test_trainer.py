"""The trainer: its loss is the stock one, its schedule the Trainer's, and every method learns."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from transformers import Trainer

from stages import params
from stages.artifacts import read_csv
from stages.errors import UserError
from stages.model.load import load_base
from stages.model.lora import load_adapter
from stages.model.scoring import label_scores
from stages.params import Train
from stages.text.batching import Collator
from stages.train.dataset import training_rows
from stages.train.outputs import write_history
from stages.train.trainer import LabelTrainer
from tests.conftest import METHODS, ROOT
from tests.unit.train.trainers import CPU, trainer_for, valid_history


@pytest.mark.parametrize("loss", ["label", "completion"])
def test_the_loss_is_the_stock_loss_on_the_answers_tokens(base_folder, prompt, examples, train_params, tmp_path, loss):
    train = dataclasses.replace(train_params, loss=loss)
    trainer = trainer_for(base_folder, prompt, examples, train, tmp_path)
    trainer.model.eval()
    rows = trainer.train_dataset[:6]
    ours = trainer.compute_loss(trainer.model, Collator(0)(rows)).item()
    stock = []
    for row in rows:
        ids = torch.tensor([row["input_ids"] + row["labels"][-1:]])
        labels = torch.full_like(ids, -100)
        labels[0, -len(row["labels"]) :] = torch.tensor(row["labels"])
        stock.append(trainer.model(input_ids=ids, labels=labels).loss.item())
    assert ours == pytest.approx(sum(stock) / len(stock), abs=1e-4)
    assert len(rows[0]["labels"]) == (1 if loss == "label" else len(prompt.answer(True)))


def test_the_binary_loss_is_the_log_loss_of_the_scores(base_folder, prompt, examples, train_params, tmp_path):
    """Of the same log-odds as scoring's, so training and evaluation see one number; the validation loss is the same."""
    train = dataclasses.replace(train_params, loss="binary")
    trainer = trainer_for(base_folder, prompt, examples, train, tmp_path)
    trainer.model.eval()
    rows = trainer.train_dataset[:6]
    labels = np.array([example.label for example in examples[:6]])
    scores = label_scores(trainer.model, prompt, [example.input for example in examples[:6]], 4096, "")
    expected = np.logaddexp(0, np.where(labels, -scores.log_odds, scores.log_odds)).mean()
    loss = trainer.compute_loss(trainer.model, Collator(0)(rows))
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert scores.loss(labels) == pytest.approx(expected)
    assert [row["labels"] for row in rows] == [[int(label)] for label in labels]
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trainer.model.parameters())


def test_a_training_by_the_binary_loss_learns(base_folder, prompt, examples, train_params, tmp_path):
    train = dataclasses.replace(train_params, loss="binary", learning_rate=2e-2, num_train_epochs=20, eval_steps=0.25)
    trainer = trainer_for(base_folder, prompt, examples, train, tmp_path)
    first = trainer.evaluate()
    trainer.train()
    last = valid_history(trainer)[-1]
    assert last["loss"] < first["eval_loss"] / 2
    assert last["roc_auc"] > 0.9


SLOW = ("lora-int8", "qlora-dq", "qlora-dequantized")


@pytest.mark.parametrize("method", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in METHODS])
def test_every_method_learns(base_folder, prompt, examples, train_params, tmp_path, method):
    # At twice the rate, rounding alone decides whether a training leaves its optimum again.
    train = dataclasses.replace(train_params, learning_rate=1e-2, num_train_epochs=20, eval_steps=0.25)
    trainer = trainer_for(base_folder, prompt, examples, train, tmp_path, METHODS[method])
    first = trainer.evaluate()
    trainer.train()
    last = valid_history(trainer)[-1]
    # Two label words start at a loss of log 2; so small a frozen head parts them by log-odds of about 1.7 only.
    assert first["eval_loss"] > 0.6
    assert last["loss"] < 0.25
    assert last["roc_auc"] > 0.9


def test_few_private_methods_of_the_trainer_are_overridden():
    private = [name for name in vars(LabelTrainer) if name.startswith("_") and not name.endswith("__")]
    assert [name for name in private if hasattr(Trainer, name)] == ["_get_grad_norm", "_save_checkpoint"]


def test_all_of_the_model_trains(base_folder, prompt, examples, train_params, tmp_path):
    """Layers in eval mode would not checkpoint their activations."""
    trainer = trainer_for(base_folder, prompt, examples, train_params, tmp_path)
    assert all(module.training for module in trainer.model.modules())


def test_the_articles_recipe_trains(base_folder, prompt, examples, tmp_path):
    raw = params.read_yaml(ROOT / "params.yaml")
    train = params.build(Train, raw["train"] | raw["methods"]["article"]["train"], "train", problems := [])
    assert not problems
    train = dataclasses.replace(train, num_train_epochs=1)
    trainer = trainer_for(base_folder, prompt, examples, train, tmp_path)
    trainer.train()
    assert trainer.model.is_activation_checkpointing
    assert valid_history(trainer)[-1]["step"] == 2  # 32 rows in batches of 16, and the last step is evaluated
    assert all(len(row["labels"]) > 1 for row in trainer.train_dataset)


def test_two_runs_write_the_same_bytes_and_another_seed_does_not(base_folder, prompt, examples, train_params, tmp_path):
    def run(name, seed):
        folder = tmp_path / name
        train = dataclasses.replace(train_params, num_train_epochs=1, eval_steps=0.5, seed=seed)
        trainer = trainer_for(base_folder, prompt, examples, train, folder)
        trainer.train()
        write_history(trainer.state.log_history, folder / "train.csv", folder / "valid.csv")
        files = [*folder.glob("*.csv"), *folder.glob("checkpoints/*/*")]
        return {str(file.relative_to(folder)): file.read_bytes() for file in files}

    one, again, other = run("one", 1), run("again", 1), run("other", 2)
    assert one == again
    for name in one:
        if name.endswith("adapter_config.json"):  # in another process a set would have another order
            modules = json.loads(one[name])["target_modules"]
            assert modules == sorted(modules) != []
    assert one.keys() == other.keys()
    assert one["valid.csv"] != other["valid.csv"]
    assert {name.split("/")[-1] for name in one} == {
        "train.csv", "valid.csv", "valid_scores.csv", "adapter_model.safetensors", "adapter_config.json",
    }  # fmt: skip


def test_accumulated_batches_give_the_gradient_of_one_large_batch(
    base_folder, prompt, examples, train_params, tmp_path
):
    def one_epoch(rows, accumulate):
        """All 32 rows make one optimizer step."""
        train = dataclasses.replace(
            train_params,
            per_device_train_batch_size=rows,
            max_tokens_per_batch=None,
            gradient_accumulation_steps=accumulate,
            num_train_epochs=1,
            max_grad_norm=0,
            optim="sgd",
            learning_rate=1.0,
            warmup_steps=0,
            lr_scheduler_type="constant",
        )
        trainer = trainer_for(base_folder, prompt, examples, train, tmp_path)
        assert trainer.train().global_step == 1
        return {
            name: weight.detach().clone() for name, weight in trainer.model.named_parameters() if weight.requires_grad
        }

    large, small = one_epoch(32, 1), one_epoch(8, 4)
    for name, weight in large.items():
        if "lora_B" in name:  # A's gradient is zero while B is
            assert weight.norm() > 0
            assert (weight - small[name]).norm() < 1e-3 * weight.norm(), name


def test_a_checkpoint_scores_valid_as_its_file_says(base_folder, prompt, examples, train_params, tmp_path):
    train = dataclasses.replace(train_params, num_train_epochs=1, eval_steps=0.5)
    trainer = trainer_for(base_folder, prompt, examples, train, tmp_path)
    trainer.train()
    checkpoint = tmp_path / f"checkpoints/checkpoint-{valid_history(trainer)[-1]['step']}"
    model = load_adapter(load_base(METHODS["qlora"], base_folder, CPU), checkpoint)
    scores = label_scores(model, prompt, [e.input for e in examples[32:]], train.eval_max_tokens_per_batch, "again")
    kept = [float(row["log_odds"]) for row in read_csv(checkpoint / "valid_scores.csv")]
    assert scores.log_odds == pytest.approx(kept, abs=1e-6)


def test_training_stops_when_valid_gets_no_better(base_folder, prompt, examples, train_params, tmp_path):
    train = dataclasses.replace(
        train_params, learning_rate=0.0, num_train_epochs=20, eval_steps=4, early_stopping_patience=2
    )
    trainer = trainer_for(base_folder, prompt, examples, train, tmp_path)
    trainer.train()
    assert [row["step"] for row in valid_history(trainer)] == [4, 8, 12]


def test_a_completion_needs_a_token_that_ends_it(prompt):
    endless = dataclasses.replace(prompt, end=[*prompt.end[:-1], None])
    with pytest.raises(UserError, match="train.loss is completion.*no eos_token.*set train.loss: label"):
        training_rows([], endless, "completion")
    assert training_rows([], endless, "label") == ([], 0)


def test_a_log_shows_the_step_and_the_time_left(start, train, tmp_path, capsys):
    start(tmp_path, train).train_to_end(None)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("train: step ")]
    steps = r"train: step {} of 10, {}loss [\d.e-]+, .*; \d+ s left"
    assert re.fullmatch(steps.format(2, ""), lines[0])
    assert re.fullmatch(steps.format(3, "valid: "), lines[1])
    assert lines[-1].startswith("train: step 10 of 10, valid: loss ")
    assert lines[-1].endswith("; 0 s left")
