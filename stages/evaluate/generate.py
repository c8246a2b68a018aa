"""Classification as in the article: the model writes its answer, and the JSON in it is parsed."""

import json
from collections.abc import Sequence

import torch
from peft import PeftModel
from tqdm import tqdm
from transformers import GenerationConfig

from stages.distributed import all_gather_rows, local_shard, rank
from stages.model.fsdp import is_sharded, passes_to_join
from stages.model.layout import underlying
from stages.model.packed_attention import attend_as_shipped
from stages.text.prompt import Prompt

WORDS = {"true": True, "false": False}
VERDICTS = (None, False, True)  # by the number that processes send to each other


@torch.no_grad()
def generate_verdicts(
    model: PeftModel, prompt: Prompt, texts: Sequence[str], batch_size: int, max_new_tokens: int
) -> list[bool | None]:
    """The verdicts in greedy answers, in the order of the texts; None if no verdict can be read.

    With several processes each answers its share of the texts, and all get all verdicts. The base model's own
    generation settings are ignored (sampling, and a repetition penalty that the words of the prompt would trigger).

    Args:
        model: base model with adapter.
        prompt: as in training.
        texts: n texts.
        batch_size: texts in a batch.
        max_new_tokens: tokens in an answer, at most.
    """
    rows = [{"input_ids": prompt.encode(ids, answer_prefix=False)} for ids in prompt.tokenize(list(local_shard(texts)))]
    device = next(model.parameters()).device
    greedy = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=prompt.tokenizer.pad_token_id,
        eos_token_id=prompt.tokenizer.eos_token_id,
    )
    starts = range(0, len(rows), batch_size)

    def answers_to(rows_now: list[dict[str, list[int]]]) -> list[str]:
        batch = prompt.tokenizer.pad(rows_now, padding_side="left", return_tensors="pt").to(device)
        tokens = model.generate(**batch, generation_config=greedy, synced_gpus=is_sharded(model))
        return prompt.tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)

    to_join = passes_to_join(model, len(starts), device)
    numbers = torch.zeros(len(rows), dtype=torch.int64)
    attention = underlying(model).config._attn_implementation
    attend_as_shipped(underlying(model))  # rows are padded and masked here
    with tqdm(total=len(rows), desc="test, generation", unit="text", disable=rank() > 0) as progress:
        for start in starts:
            answers = answers_to(rows[start : start + batch_size])
            found = [VERDICTS.index(parse_verdict(answer)) for answer in answers]
            numbers[start : start + len(found)] = torch.tensor(found)
            progress.update(len(found))
    for _ in range(to_join):  # each answer takes as many passes as the longest of all processes
        answers_to([{"input_ids": prompt.encode([], answer_prefix=False)}])
    model.set_attn_implementation(attention)
    return [VERDICTS[number] for number in all_gather_rows(numbers, len(texts), device).tolist()]


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
