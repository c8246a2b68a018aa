"""Classification as the article did it: the model writes its answer, and the JSON in it is parsed."""

import json
from collections.abc import Sequence

import torch
from peft import PeftModel
from tqdm import tqdm
from transformers import GenerationConfig

from stages.model.packed import attend_packed
from stages.model.shard import is_sharded
from stages.text.prompt import Prompt

WORDS = {"true": True, "false": False}


@torch.no_grad()
def generate_verdicts(
    model: PeftModel, prompt: Prompt, texts: Sequence[str], batch_size: int, max_new_tokens: int
) -> list[bool | None]:
    """Greedy answers to texts, in order, in batches of `batch_size` rows; None where no verdict can be read.

    The base model's own generation settings (sampling, a repetition penalty that the words of the prompt would trigger)
    are left aside.
    """
    rows = [{"input_ids": prompt.encode(ids, cue=False)} for ids in prompt.tokenize(list(texts))]
    device = next(model.parameters()).device
    greedy = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=prompt.tokenizer.pad_token_id,
        eos_token_id=prompt.tokenizer.eos_token_id,
    )
    verdicts: list[bool | None] = []
    model.set_attn_implementation("sdpa")  # rows are padded here, and masked
    with tqdm(total=len(rows), desc="test, generation", unit="text") as progress:
        for start in range(0, len(rows), batch_size):
            rows_now = rows[start : start + batch_size]
            batch = prompt.tokenizer.pad(rows_now, padding_side="left", return_tensors="pt").to(device)
            tokens = model.generate(**batch, generation_config=greedy, synced_gpus=is_sharded(model))
            answers = prompt.tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
            verdicts += map(parse_verdict, answers)
            progress.update(len(answers))
    attend_packed(model)
    return verdicts


def parse_verdict(answer: str) -> bool | None:
    """The value of `is_fraud` in the first JSON object of an answer, or None.

    >>> parse_verdict('```json\\n{"is_fraud": true}\\n```')
    True
    >>> parse_verdict("It looks like fraud.") is None
    True
    """
    start = answer.find("{")
    if start < 0:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(answer[start:])
    except (json.JSONDecodeError, RecursionError):
        return None
    verdict = value.get("is_fraud")
    if isinstance(verdict, str):
        verdict = WORDS.get(verdict.strip().lower())
    return verdict if isinstance(verdict, bool) else None
