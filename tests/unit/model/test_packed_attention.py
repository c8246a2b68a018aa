"""Packed texts against each text alone, and adapters in the base's dtype against peft's own arithmetic."""

import copy

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn import functional

from stages.model import packed_attention as packed_module
from stages.model.packed_attention import pack, packed_attention
from stages.model.patches import compute_in_base_dtype

HEADS, KEY_HEADS, SIZE = 4, 2, 8


def ranges_attention(query, key, value, ends_q, ends_k, max_q, max_k, *, scale, window_size, **options):
    """What the GPU's kernel computes, range by range: causal from the lower right corner, `window_size[0]` back."""
    out = torch.full_like(query, torch.nan)  # whoever reads what no range wrote is found out
    for q0, q1, k0, k1 in zip(ends_q, ends_q[1:], ends_k, ends_k[1:], strict=False):
        assert q1 - q0 <= max_q
        assert k1 - k0 <= max_k
        if q1 > q0:
            out[q0:q1] = alone(query[q0:q1], key[k0:k1], value[k0:k1], scale, window_size[0])
    return out


def alone(query, key, value, scale, back):
    """Causal attention of one text, (T_q, H, D) over (T_k, H_kv, D), the last query being the last key's."""
    behind = torch.arange(len(key)) - torch.arange(len(key) - len(query), len(key)).unsqueeze(1)
    mask = (behind <= 0) & ((behind >= -back) if back >= 0 else True)
    key, value = (tensor.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for tensor in (key, value))
    query, key, value = (tensor.transpose(0, 1) for tensor in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale).transpose(0, 1)


@given(
    own=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    shared=st.integers(0, 7),
    multiple=st.sampled_from([1, 16, 32]),
    rows_multiple=st.sampled_from([1, 4]),
    window=st.sampled_from([None, 5, 100]),
    varlen=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_each_text_attends_to_the_start_and_itself_as_if_alone(own, shared, multiple, rows_multiple, window, varlen):
    torch.manual_seed(0)
    lengths = torch.tensor(own) + shared
    table = [torch.randn(int(lengths.max()) * (len(own) + 2), heads, SIZE) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    ids = torch.zeros(len(own), int(lengths.max()), dtype=torch.long)
    ids[:, :shared] = torch.arange(shared)
    for row, length in enumerate(lengths):  # every token beyond the start is another
        ids[row, shared:length] = shared + sum(own[:row]) + torch.arange(own[row])
    batch = {"input_ids": ids, "positions": (lengths - 1).unsqueeze(1)}
    packed = pack(batch, shared, varlen, multiple, rows_multiple)
    assert packed["input_ids"].shape[1] % multiple == 0
    assert packed["positions"].shape[1] % rows_multiple == 0
    query, key, value = (tensor[packed["input_ids"][0]].transpose(0, 1).unsqueeze(0) for tensor in table)
    module = nn.Module()
    module.num_key_value_groups = HEADS // KEY_HEADS
    arguments = {name: part for name, part in packed.items() if name.startswith("packed_")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_module, "varlen_attn", ranges_attention)
        out, _ = packed_attention(module, query, key, value, None, scaling=0.3, sliding_window=window, **arguments)
    assert not out.isnan().any()
    start = shared
    for row, length in enumerate(lengths):
        expected = alone(*(tensor[ids[row, :length]] for tensor in table), 0.3, -1 if window is None else window - 1)
        assert torch.allclose(out[0, start : start + own[row]], expected[shared:], atol=1e-5)
        assert packed["positions"][0, row, 0] == start + own[row] - 1
        assert packed["position_ids"][0, start : start + own[row]].tolist() == list(range(shared, int(length)))
        start += own[row]


@given(
    own=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    shared=st.integers(0, 7),
    multiple=st.sampled_from([1, 16]),
    window=st.sampled_from([None, 5, 100]),
    key_heads=st.sampled_from([1, 2, 4]),
    scaling=st.sampled_from([None, 0.3]),
)
@settings(max_examples=100, deadline=None)
def test_training_on_a_cpu_gives_the_gradients_of_each_text_alone(own, shared, multiple, window, key_heads, scaling):
    """The shared start gets the sum over all texts, filling none but its own."""
    query, key, value, module, arguments, sizes = packed_case(own, shared, multiple, key_heads, torch.float64)
    arguments |= {"scaling": scaling, "sliding_window": window}
    out, _ = packed_attention(module, query, key, value, None, **arguments)
    start, *texts = zip(*(tensor[0].transpose(0, 1).split(sizes) for tensor in (query, key, value)), strict=True)
    back = -1 if window is None else window - 1
    expected = [alone(*start, scaling, back)]
    for text_query, *text in texts:
        seen = (torch.cat(pair) for pair in zip(start[1:], text, strict=True))
        expected.append(alone(text_query, *seen, scaling, back))
    weights = torch.randn_like(out)
    assert torch.allclose(out[0], torch.cat(expected), atol=1e-10)
    found = torch.autograd.grad((out * weights).sum(), (query, key, value))
    right = torch.autograd.grad((torch.cat(expected) * weights[0]).sum(), (query, key, value))
    for gradient, other in zip(found, right, strict=True):
        assert torch.allclose(gradient, other, atol=1e-10)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("normalized", [True, False])
def test_products_on_a_cpu_round_as_torchs_kernel(monkeypatch, dtype, rounding, window, key_heads, normalized):
    query, key, value, module, arguments, _ = packed_case([7, 3, 9], 5, 16, key_heads, dtype)
    if normalized:
        module.q_norm = nn.Identity()
    weights = torch.randn(query.transpose(1, 2).shape, dtype=dtype)
    passes = []
    for rows in (packed_module.product_rows, kernel_rows):
        monkeypatch.setattr(packed_module, "product_rows", rows)
        out, _ = packed_attention(module, query, key, value, None, sliding_window=window, **arguments)
        passes.append((out, *torch.autograd.grad((out * weights).sum(), (query, key, value))))
    for found, right in zip(*passes, strict=True):
        assert found.dtype == dtype
        assert (found - right).norm() <= rounding * right.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_large_scores_of_models_without_normalized_queries_keep_their_digits(dtype):
    """Qwen2's biases make scores of hundreds, which 16 bits hold to whole numbers at best."""
    query, key, value, module, arguments, _ = packed_case([7, 3, 9], 5, 16, 2, dtype)
    query, key = ((40 + tensor.detach()).requires_grad_() for tensor in (query, key))
    assert (query[0, 0] @ key[0, 0].t()).max() > 10_000
    exact = [tensor.detach().double().requires_grad_() for tensor in (query, key, value)]
    passes = []
    for tensors in ((query, key, value), exact):
        out, _ = packed_attention(module, *tensors, None, **arguments)
        passes.append((out, *torch.autograd.grad(out.double().square().sum(), tensors)))
    for found, right in zip(*passes, strict=True):
        assert (found - right).norm() <= 0.02 * right.norm()


def test_products_of_some_rows_at_a_time_are_those_of_all(monkeypatch):
    query, key, value, module, arguments, _ = packed_case([7, 3, 9], 5, 16, 2, torch.float32)
    sizes = []
    own = packed_module.product_rows
    monkeypatch.setattr(packed_module, "product_rows", lambda *part: sizes.append(len(part[0])) or own(*part))
    whole, _ = packed_attention(module, query, key, value, None, **arguments)
    monkeypatch.setattr(packed_module, "MOST_SCORES", 2 * HEADS * arguments["packed_rows"].shape[1] ** 2)
    parts, _ = packed_attention(module, query, key, value, None, **arguments)
    assert sizes == [4, 2, 2]  # three texts and the filling
    assert torch.equal(parts, whole)


def test_long_rows_on_a_cpu_keep_torchs_kernel(monkeypatch):
    """Products keep all scores of a row, so their memory is quadratic."""
    query, key, value, module, arguments, _ = packed_case([7, 3, 9], 5, 16, 1, torch.bfloat16)
    monkeypatch.setattr(packed_module, "product_rows", None)  # not callable
    with pytest.raises(TypeError):
        packed_attention(module, query, key, value, None, **arguments)
    monkeypatch.setattr(packed_module, "LONGEST_PRODUCT", arguments["packed_rows"].shape[1] - 1)
    packed_attention(module, query, key, value, None, **arguments)


def packed_case(own, shared, multiple, key_heads, dtype):
    """Random packed query, key and value (1, H, N, D) that want gradients; a module; attention's arguments; and how
    many tokens are the start's, each text's and the filling's."""
    torch.manual_seed(0)
    lengths = torch.tensor(own) + shared
    ids = torch.zeros(len(own), int(lengths.max()), dtype=torch.long)
    packed = pack({"input_ids": ids, "positions": (lengths - 1).unsqueeze(1)}, shared, False, multiple)
    total = packed["input_ids"].shape[1]
    filling = total - shared - sum(own)
    module = nn.Module()
    module.num_key_value_groups = HEADS // key_heads
    tensors = [
        torch.randn(1, total, heads, SIZE, dtype=dtype).transpose(1, 2).requires_grad_()
        for heads in (HEADS, key_heads, key_heads)
    ]
    arguments = {name: part for name, part in packed.items() if name.startswith("packed_")}
    return *tensors, module, arguments, [shared, *own, *([filling] if filling else [])]


def kernel_rows(query, key, value, mask, scaling):
    """What `product_rows` computes, by torch's kernel."""
    query, key = query.to(value.dtype), key.to(value.dtype)
    key, value = (tensor.repeat_interleave(query.shape[2] // key.shape[2], dim=2) for tensor in (key, value))
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    rows = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling
    )
    return rows.transpose(1, 2)


def test_adapters_compute_what_pefts_compute():
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(12, 20), nn.Linear(20, 6, bias=False))
    theirs = peft.get_peft_model(base, peft.LoraConfig(r=3, lora_alpha=5, target_modules=["0", "1"]))
    for name, weight in theirs.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight)
    ours = compute_in_base_dtype(copy.deepcopy(theirs))
    x = torch.randn(2, 7, 12)
    results = []
    for model in (theirs, ours):
        out = model(x)
        out.square().sum().backward()
        results.append((out, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}))
    (out, gradients), (our_out, our_gradients) = results
    assert torch.allclose(out, our_out, atol=1e-5)
    assert gradients.keys() == our_gradients.keys()
    assert len(gradients) == 4
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, our_gradients[name], rtol=1e-4, atol=1e-4), name
    with theirs.disable_adapter(), ours.disable_adapter():
        assert torch.equal(theirs(x), ours(x))


def test_adapters_stay_float32_and_compute_in_bfloat16():
    base = nn.Sequential(nn.Linear(12, 20)).bfloat16()
    model = peft.get_peft_model(base, peft.LoraConfig(r=3, target_modules=["0"]), autocast_adapter_dtype=True)
    (layer,) = (module for module in compute_in_base_dtype(model).modules() if isinstance(module, LoraLayer))
    seen = []
    layer.lora_A["default"].register_forward_hook(lambda *call: seen.append("peft's"))
    out = model(torch.randn(4, 12, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16
    assert not seen
    out.float().sum().backward()
    assert layer.lora_B["default"].weight.grad.dtype == torch.float32
