"""A loss or a gradient that is no number stops the training and names the texts."""

import pytest

from stages.errors import UserError
from stages.train.resume import ResumeCheckpoints
from tests.unit.train.trainers import At


def test_a_loss_that_is_no_number_stops_and_names_the_texts(start, tmp_path, monkeypatch):
    folder = tmp_path / "nan"
    trainer = start(folder)
    loss = trainer.passes.loss
    for number, row in enumerate(trainer.train_dataset):
        row["source"] = f"x.jsonl:{number}"
    bad = lambda *each: loss(*each) * (float("nan") if trainer.state.global_step == 4 else 1)  # noqa: E731
    monkeypatch.setattr(trainer.passes, "loss", bad)
    with pytest.raises(UserError, match=r"the loss is nan at step 5, on the texts x.jsonl:\d+, "):
        trainer.train_to_end(None)
    newest = ResumeCheckpoints(folder, 2).newest()
    assert newest.name == "state-4"
    assert (folder / "checkpoints/checkpoint-3").is_dir()


def test_a_gradient_that_is_no_number_stops_and_its_step_is_not_kept(start, tmp_path):
    trainer = start(tmp_path / "inf")
    parameter = next(p for p in trainer.model.parameters() if p.requires_grad)
    trainer.add_callback(At(2, lambda: parameter.register_hook(lambda gradient: gradient * float("inf"))))
    with pytest.raises(UserError, match="the norm of the gradient is (nan|inf) at step 3, on the texts"):
        trainer.train_to_end(None)
    assert ResumeCheckpoints(tmp_path / "inf", 2).newest().name == "state-2"
