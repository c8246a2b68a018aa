"""Texts packed one after another into a single row, without padding, behind the shared prompt prefix, which is computed
once.

All layers except attention work token by token, so packing does not change them. Attention is registered with
transformers under the name PACKED: each text attends to the shared prefix and, causally, to itself. Input that is not
packed gets transformers' own causal attention.
"""

import inspect
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

try:  # a prototype in torch; without it, attention goes by padded rows
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    varlen_attn = None  # type: ignore[assignment]

PACKED = "packed"
# torch before 2.12 accepts fewer key heads than query heads without this argument.
STATES_GQA = varlen_attn is not None and "enable_gqa" in inspect.signature(varlen_attn).parameters
# What some architectures pass to attention: soft-capped scores (Gemma 2), sinks (gpt-oss), a bias for each distance.
NOT_PACKED = ("softcap", "s_aux", "position_bias")
FEW_SHAPES = {"multiple": 256, "rows_multiple": 8}  # for CUDA graphs: arguments of `pack`
LONGEST_PRODUCT = 512  # tokens of a row: the memory of products is quadratic in it
MOST_SCORES = 2**26  # of rows that are computed together, 0.3 GB in float32
MAX_QUERIES = 512  # the kernel gets the longest length rounded up to a multiple, so that few values occur


class NotPackableError(NotImplementedError):
    """The architecture's attention does more than packed attention can."""


def pack(
    batch: dict[str, torch.Tensor], shared: int, varlen: bool, multiple: int = 1, rows_multiple: int = 1
) -> dict[str, torch.Tensor | int]:
    """Packs rows that are padded on the right into one row, on the CPU.

    Args:
        batch: input_ids (B, T) and the answers' positions (B, K).
        shared: S, tokens of the shared prompt prefix, the same at the start of all rows.
        varlen: whether attention goes by ranges of tokens (a GPU's kernel), or by padded rows (anywhere).
        multiple: the packed length is filled up to a multiple of this, by a text of its own, so that few shapes occur.
        rows_multiple: likewise the number of rows, by empty rows, whose positions are those of the first token.

    Returns the model's arguments: input_ids and position_ids (1, N), where N = S + the rows' other tokens + filling;
    `positions` (1, B, K) in them; and what `packed_attention` needs, named packed_*.
    """
    ids, positions = batch["input_ids"], batch["positions"]
    lengths = positions[:, -1] + 1 - shared  # of each row after the prefix
    filling = -int(lengths.sum() + shared) % multiple
    own = torch.cat([torch.tensor([shared]), lengths, torch.tensor([filling] if filling else [], dtype=lengths.dtype)])
    ends = own.cumsum(0)
    starts = ends - own
    columns = torch.arange(ids.shape[1])
    kept = (columns >= shared) & (columns < (lengths + shared).unsqueeze(1))
    empty_rows = -len(ids) % rows_multiple
    packed: dict[str, torch.Tensor | int] = {
        "input_ids": torch.cat([ids[0, :shared], ids[kept], ids.new_zeros(filling)]).unsqueeze(0),
        "position_ids": torch.cat(
            [columns[:shared], columns.expand_as(ids)[kept], shared + torch.arange(filling)]
        ).unsqueeze(0),
        "positions": functional.pad(
            positions - shared + starts[1 : len(ids) + 1].unsqueeze(1), (0, 0, 0, empty_rows)
        ).unsqueeze(0),
    }
    # Rows as attention sees them: the prefix, then the row's own tokens.
    seen = [torch.cat([torch.arange(shared), torch.arange(s, e)]) for s, e in zip(starts[1:], ends[1:], strict=True)]
    if varlen:
        return packed | ranges(own, seen, empty_rows + (filling == 0))
    return packed | padded_rows(own, seen)


def ranges(own: torch.Tensor, seen: list[torch.Tensor], empty_rows: int) -> dict[str, torch.Tensor | int]:
    """What attention by ranges needs.

    own: tokens of the prefix, then of each row after it; seen: packed positions that each row attends to.
    """
    shared = int(own[0])
    sizes_q = functional.pad(own, (0, empty_rows))
    sizes_k = sizes_q + torch.tensor([0] + [shared] * (len(sizes_q) - 1))
    missing = int(sizes_k.sum()) - shared - sum(map(len, seen))  # what rows without tokens attend to
    return {
        "packed_keys": torch.cat([torch.arange(shared), *seen, torch.zeros(missing, dtype=torch.long)]),
        "packed_ends_q": functional.pad(sizes_q.cumsum(0), (1, 0)).int(),
        "packed_ends_k": functional.pad(sizes_k.cumsum(0), (1, 0)).int(),
        "packed_longest": -(-int(sizes_k.max()) // MAX_QUERIES) * MAX_QUERIES,
    }


def padded_rows(own: torch.Tensor, seen: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """What attention by padded rows needs: the packed position of each token of a row, and the way back.

    own, seen: as in `ranges`.
    """
    shared = int(own[0])
    rows = pad_sequence(seen, batch_first=True) if seen else torch.arange(shared).unsqueeze(0)
    back = torch.zeros(int(own.sum()), dtype=torch.long)
    for number, (row, size) in enumerate(zip(seen, own[1:].tolist(), strict=True)):
        back[row[shared:]] = number * rows.shape[1] + shared + torch.arange(size)
    back[:shared] = torch.arange(shared)
    return {"packed_rows": rows, "packed_back": back}


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    packed_keys: torch.Tensor | None = None,
    packed_ends_q: torch.Tensor | None = None,
    packed_ends_k: torch.Tensor | None = None,
    packed_longest: int = 0,
    packed_rows: torch.Tensor | None = None,
    packed_back: torch.Tensor | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Attention of packed texts: query (1, H, N, D), key and value (1, H_kv, N, D) to (1, N, H, D).

    Args:
        scaling: of the scores; None for 1 / sqrt(D).
        sliding_window: tokens that a token attends to, itself among them; None for all before it.
        packed_keys to packed_longest: from `ranges`; packed_rows and packed_back: from `padded_rows`.
        module, attention_mask and others: for transformers' own attention, where texts are not packed.

    Raises NotPackableError where the model asks for more than causal attention in a window.
    """
    if packed_keys is None and packed_rows is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    asked = [name for name in NOT_PACKED if kwargs.get(name) is not None]
    if asked:
        raise NotPackableError(f"{type(module).__name__} asks for {', '.join(asked)}, which packed attention lacks")
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))  # (N, H, D)
    if packed_rows is not None and packed_back is not None:
        mask = window_mask(packed_rows.shape[1], sliding_window, query.device)
        if query.device.type == "cpu" and packed_rows.shape[1] <= LONGEST_PRODUCT:
            query, key, value = (rows_of(tensor, packed_rows) for tensor in (query, key, value))
            if not hasattr(module, "q_norm"):  # scores may be large, as Qwen2's are: 16 bits would round them too much
                query, key = (tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in (query, key))
            step = max(1, MOST_SCORES // (query.shape[1] ** 2 * query.shape[2]))
            parts = zip(*(tensor.split(step) for tensor in (query, key, value)), strict=True)
            rows = torch.cat([product_rows(q, k, v, mask, scaling) for q, k, v in parts])
            return rows.flatten(0, 1).index_select(0, packed_back).unsqueeze(0), None
        query, key, value = (tensor[packed_rows].transpose(1, 2) for tensor in (query, key, value))  # (B, H, T, D)
        rows, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=scaling)  # (B, T, H, D)
        return rows.flatten(0, 1)[packed_back].unsqueeze(0), None
    attend: Any = varlen_attn  # its arguments depend on torch's version
    keys: Any = packed_keys
    out = attend(
        query.contiguous(),
        key.index_select(0, keys),
        value.index_select(0, keys),
        *(packed_ends_q, packed_ends_k, packed_longest, packed_longest),
        scale=scaling,
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        **({"enable_gqa": query.shape[1] != key.shape[1]} if STATES_GQA else {}),
    )
    return out.unsqueeze(0), None


def rows_of(tensor: torch.Tensor, packed_rows: torch.Tensor) -> torch.Tensor:
    """The padded rows (B, T, H, D) of packed tokens (N, H, D). What indexing gives, but on a CPU the gradient of
    index_select takes a sixth of the time of that of an index (torch 2.13)."""
    return tensor.index_select(0, packed_rows.flatten()).unflatten(0, packed_rows.shape)


def product_rows(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float | None
) -> torch.Tensor:
    """Causal attention of padded rows in plain matrix products, (B, T, H, D).

    On a CPU in bfloat16, they take a quarter of the time of torch's kernel, forward and backward (torch 2.13). Results
    differ by rounding: scores have the dtype of query and key, while the kernel's are float32.

    Args:
        query: (B, T, H, D).
        key: (B, T, H_kv, D), of the same dtype.
        value: (B, T, H_kv, D).
        mask: (T, T), or None for all tokens before.
        scaling: of the scores; None for 1 / sqrt(D).
    """
    count, length, key_heads, size = key.shape
    if mask is None:
        mask = torch.ones(length, length, dtype=torch.bool).tril()
    # Query heads of one key head lie in one matrix (T · G, D), with G = H / H_kv rows for each token.
    query = query.unflatten(2, (key_heads, -1)).transpose(1, 2).flatten(2, 3).flatten(0, 1)  # (B · H_kv, T · G, D)
    key, value = (tensor.transpose(1, 2).flatten(0, 1) for tensor in (key, value))  # (B · H_kv, T, D)
    hidden = torch.zeros(length, length, dtype=query.dtype).masked_fill_(~mask, -torch.inf)
    hidden = hidden.repeat_interleave(query.shape[1] // length, dim=0)  # (T · G, T)
    scores = torch.baddbmm(hidden, query, key.transpose(1, 2), alpha=size**-0.5 if scaling is None else scaling)
    out = torch.bmm(scores.softmax(-1).to(value.dtype), value)  # softmax of bfloat16 computes in float32
    return out.view(count, key_heads, length, -1, value.shape[-1]).transpose(1, 2).flatten(2, 3)


def window_mask(length: int, sliding_window: int | None, device: torch.device) -> torch.Tensor | None:
    """Causal mask (T, T) of a sliding window; None where rows are not longer than the window."""
    if sliding_window is None or sliding_window >= length:
        return None
    return torch.ones(length, length, dtype=torch.bool, device=device).tril().triu(1 - sliding_window)


AttentionInterface.register(PACKED, packed_attention)


def attend_packed(model: PreTrainedModel) -> None:
    """Uses packed attention in all layers; `shipped_attention` remembers what transformers chose for the model."""
    if model.config._attn_implementation != PACKED:
        model.shipped_attention = model.config._attn_implementation
    model.set_attn_implementation(PACKED)


def attend_as_shipped(model: PreTrainedModel) -> None:
    """Uses the attention again that transformers chose for the model when it was loaded."""
    model.set_attn_implementation(getattr(model, "shipped_attention", model.config._attn_implementation))


def has_varlen(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch has attention by ranges of tokens there: it needs compute capability 8 and 16 bits."""
    if varlen_attn is None or device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)
