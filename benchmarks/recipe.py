"""One recipe of the race, in a process of its own: its speed, its memory, its loss.

python -m benchmarks.recipe NAME BATCH OUT   (the race calls it)
"""

import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks import arguments, median_rate, whole_number
from stages import params
from stages.artifacts import write_json
from stages.command import run
from stages.errors import UserError
from stages.evaluate.generate import generate_verdicts
from stages.model.device import environment, peak_memory_bytes, pick_device, reset_peak_memory, synchronize
from stages.model.forward import completion_logits
from stages.model.fsdp import shard_layers
from stages.model.load import load_base, load_tokenizer, quantization
from stages.model.lora import attach_adapter, merge_unquantized
from stages.model.patches import keep_packing
from stages.model.scoring import label_scores
from stages.params import Params
from stages.paths import BASE_MODEL, PROCESSED
from stages.plan.memory import block_matrices
from stages.text.batching import Collator
from stages.text.example import read_examples
from stages.text.prompt import build_prompt
from stages.train.arguments import training_arguments
from stages.train.dataset import training_rows
from stages.train.loss import answer_loss
from stages.train.resume import ResumeCheckpoints
from stages.train.trainer import LabelTrainer

WARM_UP, WINDOWS, WINDOW = 15.0, 5, 4.0  # seconds after the first step; windows measured; seconds of each, or more
STEPS = 100_000  # never reached
SCORED_TOKENS = 32768  # in a batch of the scoring score_batch
CHECKED = 8  # texts of the batch on which the recipes' losses are compared
# Dense bfloat16, per second, by their makers' data sheets.
PEAK_FLOPS = {"NVIDIA H100 80GB HBM3": 989.4e12, "NVIDIA H200": 989.4e12}


class Stopwatch(TrainerCallback):
    """Counts texts per second in windows after a warm-up; the time until the first step, too."""

    def __init__(self, device: torch.device, batch: int):
        self.device, self.batch = device, batch
        self.rates: list[float] = []
        self.first_step: float | None = None
        self.window: tuple[float, int] | None = None  # its start, and what was done before it

    def start(self) -> None:
        self.began = time.perf_counter()

    def count(self, done: int) -> bool:
        """Takes note that so many texts are done. Returns whether all windows are measured."""
        now = time.perf_counter()
        if self.first_step is None:
            synchronize(self.device)
            self.first_step = time.perf_counter() - self.began
            self.began = time.perf_counter()
        start, before = self.window or (self.began, 0)
        if now - start >= (WINDOW if self.window else WARM_UP):
            synchronize(self.device)
            now = time.perf_counter()
            if self.window:
                self.rates.append((done - before) / (now - start))
            self.window = (now, done)
        return len(self.rates) == WINDOWS

    def on_train_begin(self, args, state, control, **kwargs):
        self.start()

    def on_step_end(self, args, state, control, **kwargs):
        if self.count(state.global_step * self.batch):
            control.should_training_stop = True
            control.should_evaluate = control.should_save = False


def stock_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whole sequences with -100 over the prompt, as a stock Trainer reads them, of rows with loss `completion`."""
    whole = []
    for row in rows:
        answer = row["labels"]
        ids = row["input_ids"] + answer[-1:]
        whole.append({"input_ids": ids, "labels": [-100] * (len(ids) - len(answer)) + answer})
    return whole


def stock_collator(tokenizer: PreTrainedTokenizerBase) -> DataCollatorForSeq2Seq:
    """Pads on the right: prompts, masks, and labels with -100."""
    tokenizer.padding_side = "right"
    return DataCollatorForSeq2Seq(tokenizer)


def stock_model(chosen: Params):
    """NF4 and peft as everybody writes it, less a defect of bitsandbytes on some CPUs that would slow it down."""
    model = AutoModelForCausalLM.from_pretrained(
        BASE_MODEL,
        dtype=torch.bfloat16,
        device_map={"": pick_device()},
        quantization_config=quantization(chosen.methods["article"], torch.bfloat16),
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
    )
    keep_packing(model)
    return model


def lora_config(dropout: float) -> LoraConfig:
    return LoraConfig(r=16, lora_alpha=32, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM")


def stock_arguments(folder: str, batch: int, **more) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "per_device_train_batch_size": batch,
        "max_steps": STEPS,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "cosine",
        "bf16": torch.cuda.is_available(),
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 10,
        **more,
    }


@torch.no_grad()
def stock_loss(model, rows, collate) -> float:
    """Mean over the answers' tokens, from whole logits, without dropout."""
    model.eval()
    batch = {name: tensor.to(model.device) for name, tensor in collate(rows).items()}
    labels = batch.pop("labels")[:, 1:]
    logits = model(**batch).logits[:, :-1].float()
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100).item()


def stock(chosen, rows, prompt, batch, folder, watch, dropout=0.0, **changes):
    """A stock Trainer with peft on NF4, nothing saved: neither checkpointing nor dropout unless asked for."""
    model = get_peft_model(stock_model(chosen), lora_config(dropout))
    whole, collate = stock_rows(rows), stock_collator(prompt.tokenizer)
    loss = stock_loss(model, whole[:CHECKED], collate)
    options = {"gradient_checkpointing": False, "optim": "adamw_torch_fused", **changes}
    if options["gradient_checkpointing"]:
        model.enable_input_require_grads()
    arguments = TrainingArguments(**stock_arguments(folder, batch, **options))
    trainer = transformers.Trainer(model, arguments, collate, whole, callbacks=[watch])
    return loss, trainer.train


def article(*setting, **changes):
    """The article's recipe."""
    options = {"optim": "paged_adamw_32bit", "gradient_checkpointing": True, **changes}
    return stock(*setting, dropout=0.2, **options)


def liger(*setting):
    """The article's with Liger's kernels, as the Trainer's switch brings them."""
    return article(*setting, use_liger_kernel=True)


def trl(chosen, rows, prompt, batch, folder, watch):
    """TRL's SFTTrainer with QLoRA and its own defaults, completion only."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    whole = stock_rows(rows)
    arguments = SFTConfig(**stock_arguments(folder, batch, dataset_kwargs={"skip_prepare_dataset": True}))
    trainer = SFTTrainer(
        stock_model(chosen),
        arguments,
        train_dataset=Dataset.from_list(whole),
        processing_class=prompt.tokenizer,
        peft_config=lora_config(0.0),
        callbacks=[watch],
    )
    return stock_loss(trainer.model, whole[:CHECKED], stock_collator(prompt.tokenizer)), trainer.train


def ours(method: str, **changes) -> Callable:
    def recipe(chosen, rows, prompt, batch, folder, watch):
        train = dataclasses.replace(
            chosen.train, per_device_train_batch_size=batch, max_tokens_per_batch=None, lora_dropout=0.0,
            train_sampling_strategy="random", loss="completion", save_steps=STEPS, eval_steps=STEPS,
            logging_steps=10, gradient_accumulation_steps=1, r=16, lora_alpha=32, **changes,
        )  # fmt: skip
        model = shard_layers(attach_adapter(load_base(chosen.methods[method]), train), chosen.methods[method])
        arguments = training_arguments(train, pick_device(), Path(folder))
        arguments.max_steps, arguments.warmup_steps = STEPS, 0
        trainer = LabelTrainer(model, arguments, train, rows, [], prompt, ResumeCheckpoints(Path(folder), 1))
        trainer.add_callback(watch)
        with torch.no_grad():
            model.eval()
            loss = trainer.compute_loss(model, trainer.data_collator(rows[:CHECKED])).item()
        return loss, trainer.train

    return recipe


def generate(chosen, rows, prompt, batch, folder, watch):
    """The article's score_batch: the answer is written out, so many texts at once."""
    model = get_peft_model(stock_model(chosen), lora_config(0.0)).eval()
    loss = stock_loss(model, stock_rows(rows)[:CHECKED], stock_collator(prompt.tokenizer))
    texts = [example.input for example in read_examples(PROCESSED / "train.jsonl")]
    length = len(prompt.answer(True))
    batch = watch.batch = chosen.evaluate.generate_batch_size

    def score_batch(number: int) -> int:
        some = texts[number * batch :][:batch]
        generate_verdicts(model, prompt, some, batch, length)
        return len(some)

    return loss, lambda: measure_windows(score_batch, -(-len(texts) // batch), watch)


def score(chosen, rows, prompt, batch, folder, watch):
    """This project's score_batch on the same weights, all texts at once, the adapter merged."""
    model = attach_adapter(load_base(chosen.methods["qlora-dequantized"]), chosen.train).eval()
    with torch.no_grad():
        batch = Collator(prompt.tokenizer.pad_token_id)(rows[:CHECKED])
        logits = completion_logits(model, batch, len(prompt.prefix))
        loss = answer_loss(logits.cpu(), batch["labels"][:, 1:], batch["labels"][:, 1:].numel()).item()
    merge_unquantized(model)
    watch.batch = None  # SCORED_TOKENS bounds it
    texts = [example.input for example in read_examples(PROCESSED / "train.jsonl")]

    def score_batch(number: int) -> int:
        label_scores(model, prompt, texts, SCORED_TOKENS, "race")
        return len(texts)

    return loss, lambda: measure_windows(score_batch, 1, watch)


def measure_windows(score_batch: Callable[[int], int], batches: int, watch: Stopwatch) -> None:
    """Calls `score_batch` with the numbers of batches, again and again, until all windows are measured."""
    watch.start()
    done = 0
    for number in itertools.cycle(range(batches)):
        done += score_batch(number)
        if watch.count(done):
            return


RECIPES = {
    "article": article,
    "stock": stock,
    "liger": liger,
    "trl": trl,
    "plain": ours("qlora", profile="plain"),
    "speed": ours("qlora-dequantized", profile="speed"),
    "speed_nf4": ours("qlora", profile="speed"),
    "memory": ours("qlora", profile="memory"),
    "generate": generate,
    "score": score,
}


JUDGES = ("generate", "score")


def measure(name: str, batch: int) -> dict[str, Any]:
    chosen, device = params.load(), pick_device()
    if name not in RECIPES:
        raise UserError(f"recipe: found {name!r}; expected one of {', '.join(RECIPES)}")
    prompt = build_prompt(load_tokenizer(), **dataclasses.asdict(chosen.prompt))
    rows, _ = training_rows(read_examples(PROCESSED / "train.jsonl"), prompt, "completion")
    watch = Stopwatch(device, batch)
    reset_peak_memory(device)
    try:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            loss, work = RECIPES[name](chosen, rows, prompt, batch, folder, watch)
            ready = time.perf_counter() - started
            work()
    except torch.OutOfMemoryError as error:
        return {"unavailable": str(error).splitlines()[0]}
    rates = median_rate(watch.rates)
    rate = rates["samples_per_second"]
    tokens = statistics.mean(len(row["input_ids"]) for row in rows)
    return {
        "batch": watch.batch,
        "loss": loss,
        **rates,
        "tokens_per_second": rate * tokens,
        "model_flop_utilization": utilization(rate * (tokens - len(prompt.prefix)), name),
        "peak_allocated_bytes": peak_memory_bytes(device),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved() if device.type == "cuda" else None,
        "seconds_to_load": ready,
        "seconds_to_first_step": watch.first_step,
        "environment": environment(device),
    }


def utilization(tokens_per_second: float, name: str) -> float | None:
    """Share of the GPU's peak rate that the blocks' matrix products take: 2 FLOPs a weight and token in a forward pass,
    as many in a backward pass to the inputs (frozen weights get no gradient). Tokens: without the prompt's start, which
    all texts share. None where the peak rate is not known."""
    peak = PEAK_FLOPS.get(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    if peak is None:
        return None
    config = AutoConfig.from_pretrained(BASE_MODEL, trust_remote_code=False, local_files_only=True)
    passes = 1 if name in JUDGES else 2
    weights = config.num_hidden_layers * sum(rows * columns for rows, columns in block_matrices(config))
    return 2 * passes * weights * tokens_per_second / peak


def main() -> None:
    name, batch, out = arguments("NAME BATCH OUT", most=3)
    write_json(Path(out), measure(name, whole_number(batch, "batch")))


if __name__ == "__main__":
    run(main)
