"""Trains adapters, with a checkpoint and the scores of valid at every evaluation. A training that was interrupted
resumes from its last resume checkpoint.

python -m stages.train
"""

from stages import params
from stages.artifacts import read_json
from stages.command import run
from stages.distributed import is_main_process
from stages.model.device import pick_device
from stages.model.provenance import require_whole_base
from stages.paths import BASE_MODEL, CHECKPOINTS, RUNS
from stages.train.arguments import report_replaced
from stages.train.build import build_trainer
from stages.train.outputs import publish
from stages.train.resume import PROGRESS_FILE, ResumeCheckpoints, fingerprint, prune_finished


def main() -> None:
    chosen = params.load()
    report_replaced(chosen)
    device = pick_device()
    require_whole_base(BASE_MODEL)
    trainings = RUNS / "train"
    resume_checkpoints = ResumeCheckpoints(trainings / fingerprint(chosen, device), chosen.train.save_total_limit)
    with resume_checkpoints.held():
        if is_main_process():
            prune_finished(trainings, resume_checkpoints.folder)
        state = resume_checkpoints.newest()
        progress = read_json(state / PROGRESS_FILE) if state else None
        if state is None or progress is None or not progress["finished"]:
            trainer = build_trainer(chosen, device, resume_checkpoints, progress["prompt"] if progress else None)
            if state:
                print(f"train: resumes from {state}")
            state = trainer.train_to_end(state)
        else:
            print(f"train: {state} holds this training, finished: nothing is trained again")
        publish(state, resume_checkpoints.folder / CHECKPOINTS.name)


if __name__ == "__main__":
    run(main, distributed=True, options=False)
