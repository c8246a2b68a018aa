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

import contextlib
from collections.abc import Iterator

import bitsandbytes as bnb
import torch
import torch.distributed
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from stages.distributed import world_size
from stages.model.forward import completion_logits, computing, output_head, padded_logits, to_device
from stages.model.layout import Layout, chosen_layout, set_layout, underlying
from stages.model.load import ModelError
from stages.model.packed_attention import attend_as_shipped, attend_packed
from stages.text.batching import Collator
from stages.text.prompt import Prompt

# Of different lengths; the last two are cut to the same, so that rows of one length are compared as well.
TEXTS = (
    "中奖了！",
    "Hi Anna, the meeting moved to three. Could you send me the slides before lunch?",
    "您好，我是银行客服，您的账户存在异常，请马上把资金转入安全账户，并把收到的验证码告诉我，我一步一步教您操作。",
    "今天的天气真好，我们下午去公园散步吧，晚上一起在家吃饺子，妈妈说她已经把菜都买好了，等你下班就可以开饭了。",
)
LONGEST = 32  # tokens of the last two
# Keys of config.json, at any depth, beyond which a text is treated in another way.
BOUNDS = (
    "sliding_window",
    "attention_chunk_size",
    "n_positions",
    "original_max_position_embeddings",
    "max_position_embeddings",
)
# Rounding, as a share of what separates the texts' hidden states (docs/base-models.md has the figures): differences up
# to the first are; up to the second, if two ways that are right by construction lie a third as far apart; beyond it (in
# int8), if those two lie as far apart.
ROUNDING = {torch.float32: (1e-4, 1e-3), torch.float16: (0.03, 0.5), torch.bfloat16: (0.03, 0.5)}
# What other texts may change in a packed row: in a right architecture nothing, to the last bit.
LEAK = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-3}


def choose_layout(model: nn.Module, prompt: Prompt) -> Layout:
    """The fastest layout in which texts are scored as each alone by the model that transformers ships; remembered on
    the model. Raises ModelError where none is right."""
    if chosen_layout(model) is not None:
        return chosen_layout(model)
    base, was_training = underlying(model), model.training
    model.eval()
    with without_outliers(base):
        layout, tried = first_exact(model, prompt)
    model.train(was_training)
    if layout is None:
        raise ModelError(
            f"{architecture(base)}: a text's score depends on the texts that it is scored with, packed, padded or of "
            f"equal length (hidden states differ by {worst(tried, Layout.EQUAL_LENGTHS)} of what separates texts): "
            "choose another base model"
        )
    use_layout(base, layout)
    if layout is not Layout.PACKED:
        print(slower(base, layout, tried), flush=True)
    return layout


Tried = dict[Layout, tuple[float, float]]  # from the text alone, and by the company


def first_exact(model: nn.Module, prompt: Prompt) -> tuple[Layout | None, Tried]:
    """The fastest layout whose differences are rounding, and those of all that were compared."""
    base = underlying(model)
    small, large = ROUNDING[output_head(base).weight.dtype]
    rows = [{"input_ids": ids} for ids in checked_inputs(prompt, base.config)]
    attend_as_shipped(base)
    expected = alone(model, rows)
    tried: Tried = {}
    for layout in Layout:
        use_layout(base, layout)
        tried[layout] = from_alone, by_company = differences(model, prompt, rows, expected)
        if layout is Layout.PACKED:
            if from_alone <= small and by_company <= LEAK[output_head(base).weight.dtype]:
                return layout, tried
        elif from_alone <= large:
            packed, leak = tried[Layout.PACKED]
            rounding = max(from_alone, between_kernels(model, rows, expected))
            rounded = packed <= min(3 * rounding, max(large, rounding)) and leak <= LEAK[output_head(base).weight.dtype]
            return Layout.PACKED if rounded and layout is Layout.PADDED else layout, tried
    return None, tried


def between_kernels(model: nn.Module, rows: list[dict[str, list[int]]], expected: torch.Tensor) -> float:
    """How far each text alone by eager attention lies from `expected`, which another kernel of transformers computed,
    as a share of what separates the texts: rounding in the model's dtype. 0 where there is no other kernel.

    Padded rows don't show it: on a GPU they are often the text alone to the last bit.
    """
    base = underlying(model)
    try:
        base.set_attn_implementation("eager")
        found = alone(model, rows)
    except (ModelError, ValueError):  # an architecture with one kernel only
        return 0.0
    finally:
        attend_as_shipped(base)
    share = (found - expected).norm(dim=1).max() / separation(expected)
    if world_size() > 1:  # all processes choose the same
        torch.distributed.all_reduce(share, torch.distributed.ReduceOp.MAX)
    return float(share)


def separation(states: torch.Tensor) -> torch.Tensor:
    """What separates the texts: the spread of their hidden states (B, H) around the mean."""
    return (states - states.mean(0)).norm(dim=1).square().mean().sqrt() + 1e-6 * states.norm()


def use_layout(base: PreTrainedModel, layout: Layout) -> None:
    set_layout(base, layout)
    if layout is Layout.PACKED:
        attend_packed(base)
    else:
        attend_as_shipped(base)


@contextlib.contextmanager
def without_outliers(base: PreTrainedModel) -> Iterator[None]:
    """Lets bitsandbytes' 8-bit layers treat all columns alike: those with outliers are found in the whole pass, so that
    texts change one another's rounding by more than an architecture's leak."""
    layers = [module for module in base.modules() if isinstance(module, bnb.nn.Linear8bitLt)]
    thresholds = [layer.state.threshold for layer in layers]
    for layer in layers:
        layer.state.threshold = 0.0
    try:
        yield
    finally:
        for layer, threshold in zip(layers, thresholds, strict=True):
            layer.state.threshold = threshold


def slower(base: PreTrainedModel, layout: Layout, tried: Tried) -> str:
    how = {
        Layout.PADDED: "padded instead, a row a text",
        Layout.EQUAL_LENGTHS: "scored in a pass for each length instead, since padding changes scores, too",
    }
    return (
        f"WARNING: {architecture(base)}: packed into one row, texts change one another's scores (hidden states differ "
        f"by {worst(tried, Layout.PACKED)} of what separates texts), so they are {how[layout]}: right, and slower"
    )


def worst(tried: Tried, layout: Layout) -> str:
    return f"{max(tried[layout]):.1g}"


def checked_inputs(prompt: Prompt, config: PretrainedConfig) -> list[list[int]]:
    """The model's input for each of TEXTS. Where the model treats tokens beyond a bound in another way, and texts may
    be that long, one more reaches over it; where there are several bounds, over all of them."""
    short = prompt.tokenize(list(TEXTS))
    same = min(len(short[-1]), len(short[-2]), LONGEST)
    texts = [*short[:-2], short[-2][:same], short[-1][:same]]
    bound = max((bound for bound in bounds(config.to_dict()) if bound < prompt.max_length), default=0)
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
            with headless(model):
                found.append(padded_logits(model, inputs)[:, -1].float())
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # architectures fail as they like
            raise ModelError(
                f"{architecture(base)} can't score a text: {type(error).__name__}: {first_line(error)}. "
                "Expected a causal language model that takes token ids: choose another base model or method"
            ) from error
    return torch.cat(found)


@torch.no_grad()
def differences(
    model: nn.Module, prompt: Prompt, rows: list[dict[str, list[int]]], expected: torch.Tensor
) -> tuple[float, float]:
    """How much a text's hidden states in company differ from those alone, and how much they change with the company, as
    shares of what separates the texts; infinity where the architecture doesn't take this layout.

    Args:
        model: in the layout that is tried.
        prompt: whose prefix all rows begin with.
        rows: model input of B texts.
        expected: hidden states of each text alone, shape (B, H).
    """
    shared = len(prompt.prefix)
    # The even rows in reverse behind the prompt's start: the odd ones, each behind an even one, should not notice.
    others = [
        {"input_ids": row["input_ids"][:shared] + row["input_ids"][shared:][::-1]} if number % 2 == 0 else row
        for number, row in enumerate(rows)
    ]
    collate = Collator(prompt.tokenizer.pad_token_id)
    try:
        with headless(model):
            found, other = (completion_logits(model, collate(each), shared)[:, -1].float() for each in (rows, others))
    except torch.OutOfMemoryError:
        raise
    except Exception:  # another signature, another attention: architectures fail as they like
        return float("inf"), float("inf")
    from_alone = (found - expected).norm(dim=1).max()
    by_company = (found - other)[1::2].norm(dim=1).max()
    shares = (torch.stack([from_alone, by_company]) / separation(expected)).nan_to_num(float("inf"))
    if world_size() > 1:  # all processes choose the same
        torch.distributed.all_reduce(shares, torch.distributed.ReduceOp.MAX)
    return tuple(shares.tolist())


@contextlib.contextmanager
def headless(model: nn.Module) -> Iterator[None]:
    """Makes the logits the hidden states that the output head would see."""
    with computing(output_head(model), lambda hidden: hidden):
        yield


def first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")


def architecture(base: PreTrainedModel) -> str:
    return f"{type(base).__name__} (model_type {base.config.model_type})"
