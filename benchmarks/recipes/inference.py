"""Classifying texts: by generation, as the article does, and by this project's scorer, plain and fast."""

from collections.abc import Callable

import torch
from peft import get_peft_model

from benchmarks.recipes.setting import CHECKED, Setting
from benchmarks.recipes.stock import lora_config, stock_collator, stock_loss, stock_model, stock_rows
from stages.evaluate.generate import generate_verdicts
from stages.model.fast_scores import speed_up
from stages.model.forward import completion_logits
from stages.model.load import load_base
from stages.model.lora import attach_adapter, merge_unquantized
from stages.model.scoring import label_scores
from stages.paths import PROCESSED
from stages.text.batching import Collator
from stages.text.example import read_examples
from stages.train.loss import answer_loss

SCORED_TOKENS = 32768  # in a batch of the recipe `score`
SCORED_TEXTS = 16384  # at least so many in a call, with repetitions: predict has as many to do as its file holds


def generate(setting: Setting) -> tuple[float, Callable]:
    """Generates the answers, evaluate.generate_batch_size texts at once, as the article does."""
    chosen, prompt, watch = setting.chosen, setting.prompt, setting.watch
    model = get_peft_model(stock_model(chosen.methods["article"]), lora_config(0.0)).eval()
    loss = stock_loss(model, stock_rows(setting.rows)[:CHECKED], stock_collator(prompt.tokenizer))
    texts = training_texts()
    length = len(prompt.answer(True))
    batch = watch.batch = chosen.evaluate.generate_batch_size

    def score_batch(number: int) -> int:
        some = texts[number * batch :][:batch]
        generate_verdicts(model, prompt, some, batch, length)
        return len(some)

    return loss, lambda: watch.time_batches(score_batch, -(-len(texts) // batch))


def score_plain(setting: Setting) -> tuple[float, Callable]:
    """Scores all texts in a call, with the same weights and the adapter merged."""
    return time_scores(setting, fast=False)


def score(setting: Setting) -> tuple[float, Callable]:
    """The same by predict's profile speed: compiled layers and CUDA graphs."""
    return time_scores(setting, fast=True)


def time_scores(setting: Setting, fast: bool) -> tuple[float, Callable]:
    chosen, prompt, watch = setting.chosen, setting.prompt, setting.watch
    model = attach_adapter(load_base(chosen.methods["qlora-dequantized"]), chosen.train).eval()
    with torch.no_grad():
        batch = Collator(prompt.tokenizer.pad_token_id)(setting.rows[:CHECKED])
        logits = completion_logits(model, batch, len(prompt.prefix))
        loss = answer_loss(logits.cpu(), batch["labels"][:, 1:], batch["labels"][:, 1:].numel()).item()
    merge_unquantized(model)
    if fast:
        speed_up(model, prompt)
    watch.batch = None  # SCORED_TOKENS bounds it
    texts = training_texts()
    texts *= -(-SCORED_TEXTS // len(texts))

    def score_all(_: int) -> int:
        label_scores(model, prompt, texts, SCORED_TOKENS, "race")
        return len(texts)

    return loss, lambda: watch.time_batches(score_all, 1)


def training_texts() -> list[str]:
    return [example.input for example in read_examples(PROCESSED / "train.jsonl")]
