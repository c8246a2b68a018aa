"""Checks once after loading, before training or scoring, that texts in one pass get the scores that each gets alone.

Packing is exact where attention is causal and all other layers work token by token. It is not exact where layers carry
a state from token to token (Mamba, gated delta nets, convolutions) or where attention does more (sinks, soft-capped
scores, chunks). Rows padded on the right are exact for every causal model, but they also compute the padding, and the
shared prompt prefix for each text.

Hidden states before the output head are compared, since the head works token by token. A text among others is compared
with the text alone, computed by the attention that transformers chose for the model. And a text among some texts is
compared with the same text among others.
"""

import contextlib
from collections.abc import Iterator

import torch
import torch.distributed
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from stages.distributed import world_size
from stages.model.forward import completion_logits, computing, output_head, padded_logits, to_device
from stages.model.layout import Layout, chosen_layout, set_layout, underlying
from stages.model.load import ModelError
from stages.model.packed_attention import attend_as_shipped, attend_packed
from stages.model.patches import without_outliers
from stages.text.batching import Collator
from stages.text.prompt import Prompt

# Texts of several lengths. The last two are cut to the same length, so that rows of one length are compared as well.
TEXTS = (
    "中奖了！",
    "Hi Anna, the meeting moved to three. Could you send me the slides before lunch?",
    "您好，我是银行客服，您的账户存在异常，请马上把资金转入安全账户，并把收到的验证码告诉我，我一步一步教您操作。",
    "今天的天气真好，我们下午去公园散步吧，晚上一起在家吃饺子，妈妈说她已经把菜都买好了，等你下班就可以开饭了。",
)
LONGEST = 32  # tokens of the last two
# Keys of config.json, at any depth, that set a length beyond which the model treats tokens differently.
BOUNDS = (
    "sliding_window",
    "attention_chunk_size",
    "n_positions",
    "original_max_position_embeddings",
    "max_position_embeddings",
)
# Which differences count as rounding, as a share of what separates the texts' hidden states (figures in
# docs/base-models.md). Differences up to the first number always do. Those up to the second do if two computations that
# are right by construction differ by at least a third as much; those beyond it (int8), if they differ by as much.
ROUNDING = {torch.float32: (1e-4, 1e-3), torch.float16: (0.03, 0.5), torch.bfloat16: (0.03, 0.5)}
# What other texts may change in a packed row. In an architecture that can be packed, they change nothing, to the bit.
LEAK = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-3}


def choose_layout(model: nn.Module, prompt: Prompt) -> Layout:
    """The fastest layout in which each text gets the score that it gets alone, from the model as transformers ships it.
    The model remembers it. Raises ModelError where no layout is right."""
    if (chosen := chosen_layout(model)) is not None:
        return chosen
    base, was_training = underlying(model), model.training
    model.eval()
    with without_outliers(base):
        layout, tried = first_exact(model, prompt)
    model.train(was_training)
    if layout is None:
        raise ModelError(
            f"{architecture(base)}: a text's score depends on the texts that it is scored with, packed, padded or of "
            f"equal length (hidden states differ by {worst(tried, Layout.EQUAL_LENGTHS)} of what separates texts; "
            "expected rounding): choose another base model"
        )
    use_layout(base, layout)
    if layout is not Layout.PACKED:
        print(slower(base, layout, tried), flush=True)
    return layout


Tried = dict[Layout, tuple[float, float]]  # differences from the text alone, and between other texts in the pass


def first_exact(model: nn.Module, prompt: Prompt) -> tuple[Layout | None, Tried]:
    """The fastest layout whose differences are rounding, and the differences of all layouts that were tried."""
    base = underlying(model)
    small, large = ROUNDING[output_head(base).weight.dtype]
    rows = [{"input_ids": ids} for ids in checked_inputs(prompt, base.config)]
    attend_as_shipped(base)
    expected = alone(model, rows)
    tried: Tried = {}
    for layout in Layout:
        use_layout(base, layout)
        tried[layout] = from_alone, by_others = differences(model, prompt, rows, expected)
        if layout is Layout.PACKED:
            if from_alone <= small and by_others <= LEAK[output_head(base).weight.dtype]:
                return layout, tried
        elif from_alone <= large:
            packed, leak = tried[Layout.PACKED]
            rounding = max(from_alone, between_kernels(model, rows, expected))
            rounded = packed <= min(3 * rounding, max(large, rounding)) and leak <= LEAK[output_head(base).weight.dtype]
            return Layout.PACKED if rounded and layout is Layout.PADDED else layout, tried
    return None, tried


def between_kernels(model: nn.Module, rows: list[dict[str, list[int]]], expected: torch.Tensor) -> float:
    """How large rounding is in the model's dtype: the difference between two attention kernels of transformers, eager
    and the one that computed `expected`, as a share of what separates the texts. 0 where there is no other kernel.

    Padded rows don't show it: on a GPU they often equal the text alone to the last bit.
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


def slower(base: PreTrainedModel, layout: Layout, tried: Tried) -> str:
    """The warning that texts are not packed."""
    how = {
        Layout.PADDED: "padded instead, one row for each text",
        Layout.EQUAL_LENGTHS: "scored in one pass for each length instead, since padding changes scores, too",
    }
    return (
        f"WARNING: {architecture(base)}: packed into one row, texts change one another's scores (hidden states differ "
        f"by {worst(tried, Layout.PACKED)} of what separates texts), so they are {how[layout]}: right, but slower"
    )


def worst(tried: Tried, layout: Layout) -> str:
    return f"{max(tried[layout]):.1g}"


def checked_inputs(prompt: Prompt, config: PretrainedConfig) -> list[list[int]]:
    """The model's input for each of TEXTS. Where the model treats tokens beyond a bound differently, and texts may be
    that long, one more text is longer than the largest such bound."""
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
    """Hidden states (B, H) before the output head, at the last token of each row, from one pass for each row."""
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
        except Exception as error:  # architectures raise errors of any type
            raise ModelError(
                f"{architecture(base)} can't score a text: {type(error).__name__}: {first_line(error)}. "
                "Expected a causal language model that takes token ids: choose another base model or method"
            ) from error
    return torch.cat(found)


@torch.no_grad()
def differences(
    model: nn.Module, prompt: Prompt, rows: list[dict[str, list[int]]], expected: torch.Tensor
) -> tuple[float, float]:
    """How much a text's hidden states among others differ from those alone, and how much they change with the others.

    Args:
        model: in the layout that is tried.
        prompt: its prefix begins all rows.
        rows: model input of B texts.
        expected: hidden states of each text alone, shape (B, H).

    Returns both as shares of what separates the texts; infinity where the architecture can't compute this layout.
    """
    shared = len(prompt.prefix)
    # Even rows are reversed behind the shared prefix. Each odd row follows an even one, and must not change.
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
    except Exception:  # another signature, another attention: errors of any type
        return float("inf"), float("inf")
    from_alone = (found - expected).norm(dim=1).max()
    by_others = (found - other)[1::2].norm(dim=1).max()
    shares = (torch.stack([from_alone, by_others]) / separation(expected)).nan_to_num(float("inf"))
    if world_size() > 1:  # all processes choose the same
        torch.distributed.all_reduce(shares, torch.distributed.ReduceOp.MAX)
    return tuple(shares.tolist())


@contextlib.contextmanager
def headless(model: nn.Module) -> Iterator[None]:
    """Makes the model return, as logits, the hidden states that the output head would see."""
    with computing(output_head(model), lambda hidden: hidden):
        yield


def first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")


def architecture(base: PreTrainedModel) -> str:
    return f"{type(base).__name__} (model_type {base.config.model_type})"
