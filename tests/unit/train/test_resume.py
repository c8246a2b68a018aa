"""A training that was ended resumes and writes the same history, checkpoints and bytes as one that was not."""

import dataclasses
import os
import resource
import signal

import pytest

from stages.artifacts import read_json
from stages.errors import UserError
from stages.train.outputs import write_history
from stages.train.resume import PROGRESS_FILE, ResumeCheckpoints, prune_finished
from tests.unit.train.trainers import At, Killed, kill


def results(folder, trainer):
    write_history(trainer.state.log_history, folder / "train.csv", folder / "valid.csv")
    files = [*folder.glob("*.csv"), *folder.glob("checkpoints/*/*")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def uninterrupted(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    trainer = start(folder)
    trainer.train_to_end(None)
    return results(folder, trainer)


def killed_and_resumed(start, folder, steps, action=kill, params=None):
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


def test_a_killed_and_resumed_training_writes_the_same_bytes(start, tmp_path, uninterrupted):
    """Before the first state, within an epoch, at its end, at an evaluation, at the last step."""
    trainer, _ = killed_and_resumed(start, tmp_path / "killed", [1, 3, 4, 5, 9, 10])
    assert trainer.state.global_step == trainer.state.max_steps == 10
    assert results(tmp_path / "killed", trainer) == uninterrupted
    assert len(ResumeCheckpoints(tmp_path / "killed", 2).all()) == 2


def test_a_signal_saves_and_ends_the_process_with_its_number(start, train, tmp_path, uninterrupted, capfd):
    seldom = dataclasses.replace(train, save_steps=100)
    stop = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    trainer, ended = killed_and_resumed(start, tmp_path / "stopped", [3, 7], stop, seldom)
    assert ended.value.code == 128 + signal.SIGTERM
    assert "train: stopped by signal 15 at step" in capfd.readouterr().err
    assert results(tmp_path / "stopped", trainer) == uninterrupted
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(
    "fault",
    [
        "torn",
        "no hashes",
        *(pytest.param(fault, marks=pytest.mark.slow) for fault in ("missing", "altered", "torn hashes")),
    ],
)
def test_a_torn_checkpoint_is_named_and_the_one_before_is_used(start, tmp_path, uninterrupted, fault, capsys):
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


def test_early_stopping_after_a_resume_is_saved(start, train, tmp_path):
    """The Trainer puts a restored EarlyStoppingCallback behind all others."""
    still = dataclasses.replace(train, learning_rate=0.0, eval_steps=1, early_stopping_patience=4, save_steps=3)
    trainer, _ = killed_and_resumed(start, tmp_path / "early", [4], params=still)
    assert trainer.state.global_step == 5
    newest = ResumeCheckpoints(tmp_path / "early", 2).newest()
    assert newest.name == "state-5"
    assert read_json(newest / PROGRESS_FILE)["finished"]


def test_a_full_disk_is_reported_and_earlier_checkpoints_stay(start, tmp_path, uninterrupted):
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


def test_a_second_training_at_once_is_refused(tmp_path):
    with (
        ResumeCheckpoints(tmp_path / "one", 2).held(),
        pytest.raises(UserError, match="another process trains the same"),
        ResumeCheckpoints(tmp_path / "one", 2).held(),
    ):
        pass


def test_finished_trainings_are_removed_and_unfinished_ones_stay(tmp_path):
    for name, finished in (("a", True), ("b", False), ("mine", False)):
        with ResumeCheckpoints(tmp_path / name, 2).saving(3, {"finished": finished}):
            pass
    prune_finished(tmp_path, tmp_path / "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "mine"]
