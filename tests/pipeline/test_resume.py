"""A training that is ended goes on as if it had not been: same history, same checkpoints, same bytes."""

import dataclasses
import os
import resource
import shutil
import signal

import pytest
import torch
from transformers import TrainerCallback

from stages.artifacts import read_json, replacing_folder
from stages.errors import UserError
from stages.text.example import write_examples
from stages.train import __main__ as train_stage
from stages.train.callbacks import write_history
from stages.train.resume import PROGRESS_FILE, ResumeCheckpoints, prune_finished
from tests.unit.train.test_trainer import examples, trainer_for  # noqa: F401 (a fixture)


class Killed(BaseException):
    """No error that anything would handle."""


class At(TrainerCallback):
    """Does something at the end of a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.action()


def kill():
    raise Killed


@pytest.fixture
def train(train_params):
    """11 steps in two epochs and a bit, accumulated, with dropout: all random states count."""
    return dataclasses.replace(
        train_params,
        num_train_epochs=2.5,
        gradient_accumulation_steps=2,
        lora_dropout=0.2,
        eval_steps=3,
        logging_steps=2,
        save_steps=1,
        learning_rate=2e-3,
        per_device_train_batch_size=4,
    )


@pytest.fixture
def start(base_folder, prompt, examples, train):  # noqa: F811
    return lambda folder, params=train: trainer_for(base_folder, prompt, examples, params, folder)


def results(folder, trainer):
    write_history(trainer.state.log_history, folder / "train.csv", folder / "valid.csv")
    files = [*folder.glob("*.csv"), *folder.glob("checkpoints/*/*")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.fixture
def uninterrupted(start, tmp_path):
    trainer = start(tmp_path / "whole")
    trainer.train_to_end(None)
    return results(tmp_path / "whole", trainer)


def go_on(start, folder, steps, action=kill, params=None):
    """Kills at each of the steps in turn, then trains to the end."""
    extra = () if params is None else (params,)
    for step in steps:
        trainer = start(folder, *extra)
        trainer.add_callback(At(step, action))
        with pytest.raises((Killed, SystemExit)) as ended:
            trainer.train_to_end(ResumeCheckpoints(folder, 2).newest())
    trainer = start(folder, *extra)
    trainer.train_to_end(ResumeCheckpoints(folder, 2).newest())
    return trainer, ended


def test_killed_and_gone_on_is_uninterrupted_byte_for_byte(start, tmp_path, uninterrupted):
    """Before the first state, within an epoch, at its end, at an evaluation, at the last step."""
    trainer, _ = go_on(start, tmp_path / "killed", [1, 3, 4, 5, 9, 10])
    assert trainer.state.global_step == trainer.state.max_steps == 10
    assert results(tmp_path / "killed", trainer) == uninterrupted
    assert len(ResumeCheckpoints(tmp_path / "killed", 2).all()) == 2


def test_a_signal_saves_and_ends_the_process_with_its_number(start, train, tmp_path, uninterrupted, capfd):
    seldom = dataclasses.replace(train, save_steps=100)
    stop = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    trainer, ended = go_on(start, tmp_path / "stopped", [3, 7], stop, seldom)
    assert ended.value.code == 128 + signal.SIGTERM
    assert "train: stopped by signal 15 at step" in capfd.readouterr().err
    assert results(tmp_path / "stopped", trainer) == uninterrupted
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("fault", ["torn", "missing", "altered", "no hashes", "torn hashes"])
def test_a_torn_state_is_named_and_the_one_before_is_used(start, tmp_path, uninterrupted, fault, capsys):
    folder = tmp_path / "torn"
    trainer = start(folder)
    trainer.add_callback(At(6, kill))
    with pytest.raises(Killed):
        trainer.train_to_end(None)
    newest, before = ResumeCheckpoints(folder, 2).all()
    file = newest / ("hashes.json" if "hashes" in fault else "optimizer.pt")
    content = file.read_bytes()
    if fault in ("missing", "no hashes"):
        file.unlink()
    else:
        file.write_bytes(content[:-1] if fault.startswith("torn") else content[:-1] + bytes([content[-1] ^ 1]))
    assert ResumeCheckpoints(folder, 2).newest() == before
    assert f"{newest} can't be used" in capsys.readouterr().out
    trainer = start(folder)
    trainer.train_to_end(ResumeCheckpoints(folder, 2).newest())
    assert results(folder, trainer) == uninterrupted


def test_a_training_that_had_ended_is_not_trained_again(start, train, tmp_path):
    """Early stopping, too, is an end: valid gets no better at a learning rate of 0."""
    still = dataclasses.replace(train, learning_rate=0.0, eval_steps=1, early_stopping_patience=2, save_steps=100)
    trainer = start(tmp_path / "early", still)
    last = trainer.train_to_end(None)
    assert trainer.state.global_step == 3
    assert read_json(last / PROGRESS_FILE)["finished"]


def test_a_full_disk_is_said_and_nothing_before_is_lost(start, tmp_path, uninterrupted):
    """A limit on the size of files is to a writer what a full disk is."""
    folder = tmp_path / "full"
    trainer = start(folder)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = 20_000  # bytes: an adapter of the tiny model has more

    def fill():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, unlimited[1]))

    trainer.add_callback(At(5, fill))
    try:
        with pytest.raises(UserError, match="could not be written.*Make room.*dvc repro"):
            trainer.train_to_end(None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert [state.name for state in ResumeCheckpoints(folder, 2).all()] == ["state-4", "state-3"]
    assert not list(folder.glob(".writing*"))
    trainer = start(folder)
    trainer.train_to_end(ResumeCheckpoints(folder, 2).newest())
    assert results(folder, trainer) == uninterrupted


def test_a_batch_that_does_not_fit_is_worked_off_in_pieces(start, train, tmp_path, monkeypatch, capfd):
    """A model that has room for two rows at once gives the gradients of one that has room for all."""
    params = dataclasses.replace(train, lora_dropout=0.0, save_steps=100, num_train_epochs=1)
    whole = start(tmp_path / "whole", params)
    whole.train_to_end(None)

    small = start(tmp_path / "small", params)
    loss = small.compute_loss

    def limited(model, inputs, **options):
        if len(inputs["input_ids"]) > 1:
            loss(model, inputs, **options).backward()  # what was computed before memory ran out must not count
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(model, inputs, **options)

    calls = 0

    def second_batch(model, inputs, **options):
        """Memory runs out, twice, at the second batch of a step, when there are gradients of the first."""
        nonlocal calls
        calls += 1
        return (limited if calls > 1 else loss)(model, inputs, **options)

    monkeypatch.setattr(small, "compute_loss", second_batch)
    small.train_to_end(None)
    assert small.pieces == 4
    assert "in 4 pieces" in capfd.readouterr().err
    for (name, one), (_, other) in zip(whole.model.named_parameters(), small.model.named_parameters(), strict=True):
        if one.requires_grad:
            assert torch.allclose(one, other, atol=2e-4), name

    never = start(tmp_path / "never", params)
    monkeypatch.setattr(never, "compute_loss", lambda *a, **k: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    with pytest.raises(UserError, match=r"1 text\(s\) of \d+ tokens does not fit.*train.profile: memory"):
        never.train_to_end(None)


def test_auto_goes_on_as_memory_where_a_batch_does_not_fit(start, train, tmp_path, monkeypatch, capfd):
    params = dataclasses.replace(train, lora_dropout=0.0)
    plain = start(tmp_path / "plain", params)
    plain.train_to_end(None)
    auto = start(tmp_path / "auto", dataclasses.replace(params, profile="auto"))
    loss = auto.compute_loss

    def tight(model, inputs, **options):
        if not model.is_activation_checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(model, inputs, **options)

    monkeypatch.setattr(auto, "compute_loss", tight)
    auto.train_to_end(None)
    assert "auto goes on as memory" in capfd.readouterr().err
    assert auto.pieces == 1
    for (name, one), (_, other) in zip(plain.model.named_parameters(), auto.model.named_parameters(), strict=True):
        if one.requires_grad:
            assert torch.allclose(one, other, atol=2e-4), name


def test_a_loss_that_is_no_number_stops_and_names_the_texts(start, tmp_path, monkeypatch):
    folder = tmp_path / "nan"
    trainer = start(folder)
    loss = trainer.compute_loss
    for number, row in enumerate(trainer.train_dataset.rows):
        row["source"] = f"x.jsonl:{number}"
    bad = lambda *a, **k: loss(*a, **k) * (float("nan") if trainer.state.global_step == 4 else 1)  # noqa: E731
    monkeypatch.setattr(trainer, "compute_loss", bad)
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


def test_two_at_once_the_second_is_refused(tmp_path):
    with (
        ResumeCheckpoints(tmp_path / "one", 2).held(),
        pytest.raises(UserError, match="another process trains the same"),
        ResumeCheckpoints(tmp_path / "one", 2).held(),
    ):
        pass


def test_what_others_finished_goes_and_what_they_broke_off_stays(tmp_path):
    for name, finished in (("a", True), ("b", False), ("mine", False)):
        with ResumeCheckpoints(tmp_path / name, 2).saving(3, {"finished": finished}):
            pass
    prune_finished(tmp_path, tmp_path / "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "mine"]


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
    examples,  # noqa: F811
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
    trainer = train_stage.LabelTrainer

    def killed_at_step_2(*arguments):
        made = trainer(*arguments)
        made.add_callback(At(2, kill))
        return made

    monkeypatch.setattr(train_stage, "LabelTrainer", killed_at_step_2)
    with pytest.raises(Killed):
        train_stage.main()
    (state,) = tmp_path.glob("runs/train/*/state-1")
    first = read_json(state / PROGRESS_FILE)["prompt"]
    monkeypatch.setattr(train_stage, "LabelTrainer", trainer)
    train_stage.main()
    assert read_json(tmp_path / "models/checkpoints/prompt.json") == first
    assert "writes the date" in capsys.readouterr().out


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("x")

    def write(last):
        with replacing_folder(target) as folder:
            (folder / "new").write_text("y")
            last()

    with pytest.raises(Killed):
        write(kill)
    assert [file.name for file in target.iterdir()] == ["old"]
    shutil.copytree(target, tmp_path / ".writing-out")  # of a process that was killed outright
    write(lambda: None)
    assert [file.name for file in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
