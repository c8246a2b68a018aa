"""Whether texts that share a pass are scored as each of them alone: compared once after loading, before anything is
trained or scored.

Packing is exact where all layers but attention work token by token and attention is causal. It is not where layers
carry a state from token to token (Mamba, gated delta nets, convolutions) or where attention has more to it (sinks,
soft-capped scores, chunks). Rows padded on the right are exact for every causal model, but cost the padding and the
prompt's start once a text.

Two things are compared, on the hidden states before the output head, since all that follows works token by token: a
text in company with the text alone, by the attention that transformers chose for the model; and a text in one company
with the text in another.
"""

import functools
import math
from collections.abc import Callable

import bitsandbytes as bnb
import torch
import torch.distributed
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from stages import world_size
from stages.model.answer import answer_logits, output_head, padded_logits, to_device
from stages.model.layout import Layout, chosen_layout, set_layout, underlying
from stages.model.load import ModelError
from stages.model.packed import attend_as_shipped, attend_packed
from stages.text.batches import Collator
from stages.text.prompt import Prompt

# Of different lengths, the last two cut to the same: a batch of one length is compared as well.
TEXTS = (
    "中奖了！",
    "您好，我是银行客服，您的账户存在异常，请将资金转入安全账户，并把收到的验证码告诉我。",
    "Hi Anna, the meeting moved to three. Could you send me the slides before lunch? Thanks!",
    "王女士，您的快递丢失，我们按三倍赔付，请加理赔专员的微信，下载这个软件，打开屏幕共享，我一步一步教您操作。" * 2,
    "今天的天气真好，我们下午去公园散步吧，晚上一起在家吃饺子，妈妈说她已经把菜都买好了，等你下班。" * 2,
)
# Keys of config.json, at any depth, beyond which a text is treated in another way.
BOUNDS = (
    "sliding_window",
    "attention_chunk_size",
    "n_positions",
    "original_max_position_embeddings",
    "max_position_embeddings",
)
# Most that a text's hidden states may differ from those of the text alone, as a share of what separates the texts: by
# rounding, by dtype, and in int8, where bitsandbytes treats columns with outliers of the whole pass in another way.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.15, torch.bfloat16: 0.15}
TOLERANCE_INT8 = 0.5
# Most that other texts in a packed row may change: a right architecture computes the very same numbers.
LEAK = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-3}


def choose_layout(model: nn.Module, prompt: Prompt) -> Layout:
    """The fastest layout in which texts are scored as each alone by the model that transformers ships; remembered on
    the model. Raises ModelError where none is right."""
    if chosen_layout(model) is not None:
        return chosen_layout(model)
    base, was_training = underlying(model), model.training
    model.eval()
    rows = [{"input_ids": ids} for ids in checked_inputs(prompt, base.config)]
    attend_as_shipped(base)
    expected = alone(model, rows)
    tried = {}
    for layout in Layout:
        set_layout(base, layout)
        if layout is Layout.PACKED:
            attend_packed(base)
        else:
            attend_as_shipped(base)
        tried[layout] = differences(model, prompt, rows, expected)
        if is_exact(base, layout, *tried[layout]):
            break
    else:
        raise ModelError(
            f"{architecture(base)}: a text's score depends on the texts that it is scored with, packed, padded or of "
            f"equal length (hidden states differ by {tried[layout][0]:.1g} of what separates the texts; expected "
            f"{tolerance(base):g} at most): choose another base model"
        )
    model.train(was_training)
    if layout is not Layout.PACKED:
        print(slower(base, layout, tried), flush=True)
    return layout


def is_exact(base: PreTrainedModel, layout: Layout, from_alone: float, by_company: float) -> bool:
    """Whether differences are no more than rounding. What a packed row leaks can be as little as that in a model of 16
    bits, so there the company's influence counts by itself."""
    if layout is Layout.PACKED and not in_int8(base) and by_company > LEAK[output_head(base).weight.dtype]:
        return False
    return from_alone <= tolerance(base)


def tolerance(base: PreTrainedModel) -> float:
    return TOLERANCE_INT8 if in_int8(base) else TOLERANCE[output_head(base).weight.dtype]


def in_int8(base: PreTrainedModel) -> bool:
    return any(isinstance(module, bnb.nn.Linear8bitLt) for module in base.modules())


def slower(base: PreTrainedModel, layout: Layout, tried: dict[Layout, tuple[float, float]]) -> str:
    found = max(tried[Layout.PACKED])
    why = f"differ by {found:.1g} of what separates texts" if math.isfinite(found) else "are not possible"
    how = {
        Layout.PADDED: "padded instead, a row a text",
        Layout.EQUAL_LENGTHS: "scored in a pass for each length instead, since padding changes scores, too",
    }
    return (
        f"WARNING: {architecture(base)}: scores of texts packed into one row {why}, so texts are {how[layout]}: right, "
        "and slower (docs/base-models.md)"
    )


def checked_inputs(prompt: Prompt, config: PretrainedConfig) -> list[list[int]]:
    """The model's input for each of TEXTS. Where the model treats tokens beyond a bound in another way, and texts may
    be that long, one more reaches over it."""
    short = prompt.tokenize(list(TEXTS))
    same = min(len(short[-1]), len(short[-2]))
    texts = [*short[:-2], short[-2][:same], short[-1][:same]]
    bound = min((bound for bound in bounds(config.to_dict()) if bound < prompt.max_length), default=0)
    if bound:
        over = min(prompt.room, bound + same)
        texts.append((short[-2] * (over // len(short[-2]) + 1))[:over])
    return [prompt.encode(ids) for ids in texts]


def bounds(config: dict) -> list[int]:
    found = []
    for key, value in config.items():
        if isinstance(value, dict):
            found += bounds(value)
        elif key in BOUNDS and isinstance(value, int):
            found.append(value)
    return found


@torch.no_grad()
def alone(model: nn.Module, rows: list[dict[str, list[int]]]) -> torch.Tensor:
    """Hidden states (B, H) before the output head, at the last token of each row, each in a pass of its own."""
    base, device = underlying(model), output_head(model).weight.device
    found = []
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        inputs = to_device({"input_ids": ids, "positions": torch.tensor([[ids.shape[1] - 1]])}, device)
        try:
            found.append(before_head(model, functools.partial(padded_logits, model, inputs)))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # architectures fail as they like
            raise ModelError(
                f"{architecture(base)} can't score a text: {type(error).__name__}: {first_line(error)}. "
                "Expected a causal language model that takes token ids: choose another base model"
            ) from error
    return torch.cat(found)


@torch.no_grad()
def differences(
    model: nn.Module, prompt: Prompt, rows: list[dict[str, list[int]]], expected: torch.Tensor
) -> tuple[float, float]:
    """How much a text's hidden states in company differ from `expected`, and how much they change with the company, as
    shares of what separates the texts; infinity where the architecture doesn't take this layout."""
    shared = len(prompt.prefix)
    # The even rows in reverse behind the prompt's start: the odd ones, each behind an even one, should not notice.
    others = [
        {"input_ids": row["input_ids"][:shared] + row["input_ids"][shared:][::-1]} if number % 2 == 0 else row
        for number, row in enumerate(rows)
    ]
    collate = Collator(prompt.tokenizer.pad_token_id)
    try:
        found, other = (
            before_head(model, functools.partial(answer_logits, model, collate(each), shared))
            for each in (rows, others)
        )
    except torch.OutOfMemoryError:
        raise
    except Exception:  # another signature, another attention: architectures fail as they like
        return float("inf"), float("inf")
    apart = (expected - expected.mean(0)).norm(dim=1).square().mean().sqrt() + 1e-6 * expected.norm()
    from_alone = (found - expected).norm(dim=1).max()
    by_company = (found - other)[1::2].norm(dim=1).max()
    shares = (torch.stack([from_alone, by_company]) / apart).nan_to_num(float("inf"))
    if world_size() > 1:  # all processes choose the same
        torch.distributed.all_reduce(shares, torch.distributed.ReduceOp.MAX)
    return tuple(shares.tolist())


def before_head(model: nn.Module, run: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What the output head sees, (B, H) in float32, while `run` passes through the model."""
    seen = []
    note = output_head(model).register_forward_hook(lambda head, inputs, output: seen.append(inputs[0][:, -1].float()))
    try:
        run()
    finally:
        note.remove()
    return torch.cat(seen)


def first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")


def architecture(base: PreTrainedModel) -> str:
    return f"{type(base).__name__} (model_type {base.config.model_type})"
