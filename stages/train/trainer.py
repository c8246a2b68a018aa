"""transformers' Trainer with two things replaced: the loss looks at the answer's tokens alone, and evaluation is the
project's one scorer. Schedules, optimizers, clipping and callbacks are the Trainer's own."""

from pathlib import Path

import torch
from peft import PeftModel
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from stages.metrics import BEST_F1, choose_threshold, decision_metrics, ranking_metrics
from stages.model.answer import answer_logits
from stages.model.score import LabelScores, label_scores
from stages.params import Train
from stages.text.batches import Collator, TokenBudgetBatches
from stages.text.example import Example
from stages.text.prompt import Prompt
from stages.train.callbacks import EvaluateAtEnd, History


def training_rows(examples: list[Example], prompt: Prompt, loss: str) -> tuple[list[dict[str, list[int]]], int]:
    """Model input and the K tokens that should follow its last K positions; and how many texts lost their end.

    loss `label`: the input ends with the cue, K = 1. loss `completion`: the whole answer is asked for, cue first.
    """
    texts = prompt.tokenize([example.input for example in examples])
    rows = []
    for example, ids in zip(examples, texts, strict=True):
        if loss == "label":
            rows.append({"input_ids": prompt.encode(ids), "labels": [prompt.label_ids[example.label]]})
        else:
            answer = prompt.answer(example.label)
            rows.append({"input_ids": prompt.encode(ids, cue=False) + answer[:-1], "labels": answer})
    return rows, sum(len(ids) > prompt.room for ids in texts)


def training_arguments(train: Train, device: torch.device, output_dir: Path) -> TrainingArguments:
    """The Trainer's arguments for the section `train` of params.yaml, which names its keys as the Trainer does."""
    optim = train.optim
    if optim == "auto":
        optim = "paged_adamw_32bit" if device.type == "cuda" else "adamw_torch_fused"
    arguments = TrainingArguments(
        output_dir=str(output_dir),
        num_train_epochs=train.num_train_epochs,
        per_device_train_batch_size=train.per_device_train_batch_size,
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=train.warmup_steps,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optim=optim,
        activation_checkpointing=train.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        eval_strategy="steps",
        eval_steps=train.eval_steps if train.eval_steps < 1 else int(train.eval_steps),
        logging_steps=train.logging_steps,
        save_strategy="no",  # KeepAdapter writes the checkpoints, at each evaluation
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        seed=train.seed,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
        report_to="none",
    )
    arguments._n_gpu = 1  # one process uses one GPU; the Trainer would spread a batch over all by nn.DataParallel
    return arguments


class LabelTrainer(Trainer):
    """Trains on the answer's tokens; evaluates by scoring `valid`, whose scores stay in `valid_scores`."""

    def __init__(
        self,
        model: PeftModel,
        args: TrainingArguments,
        params: Train,
        rows: list[dict[str, list[int]]],
        valid: list[Example],
        prompt: Prompt,
        history: History,
    ):
        super().__init__(
            model,
            args,
            data_collator=Collator(prompt.tokenizer.pad_token_id),
            train_dataset=rows,
            eval_dataset=valid,
            callbacks=[EarlyStoppingCallback(params.early_stopping_patience), EvaluateAtEnd(), history],
        )
        self.params = params
        self.prompt = prompt
        self.valid_scores: LabelScores | None = None

    def get_train_dataloader(self) -> DataLoader:
        batches = TokenBudgetBatches(
            [len(row["input_ids"]) for row in self.train_dataset],
            self.params.max_tokens_per_batch,
            self.params.per_device_train_batch_size,
            shuffle=True,
            group_by_length=self.params.train_sampling_strategy == "group_by_length",
            seed=self.params.seed,
        )
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Mean cross entropy, over the vocabulary, of the K answer tokens in labels (B, 1 + K).

        The mean is over all answer tokens of the optimizer step (num_items_in_batch), so it does not depend on how
        batches were accumulated.
        """
        labels = inputs.pop("labels")[:, 1:]
        logits = answer_logits(model, inputs).float()  # (B, K, vocabulary)
        total = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        loss = total / (labels.numel() if num_items_in_batch is None else num_items_in_batch)
        return (loss, {"logits": logits}) if return_outputs else loss

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval") -> dict[str, float]:
        """Scores `valid` and logs loss, average precision, ROC AUC and the best F1 that a threshold could give."""
        labels = [example.label for example in self.eval_dataset]
        texts = [example.input for example in self.eval_dataset]
        scores = label_scores(self.model, self.prompt, texts, self.params.eval_max_tokens_per_batch, "valid")
        threshold = choose_threshold(labels, scores.log_odds, BEST_F1)
        metrics = {
            f"{metric_key_prefix}_loss": scores.loss(labels),
            f"{metric_key_prefix}_f1": decision_metrics(labels, scores.log_odds >= threshold)["f1"],
            **{
                f"{metric_key_prefix}_{name}": value for name, value in ranking_metrics(labels, scores.log_odds).items()
            },
        }
        self.valid_scores = scores
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
