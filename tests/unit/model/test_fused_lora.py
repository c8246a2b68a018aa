"""Fused adapters compute what each adapted layer computes by itself."""

import dataclasses

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

from stages.model.forward import completion_logits
from stages.model.fused_lora import FusedAdapters
from stages.model.fused_products import frozen_of, unpacked
from stages.model.load import load_base
from stages.model.lora import attach_adapter, merge_unquantized
from stages.params import Method
from stages.text.batching import Collator
from tests.conftest import METHODS
from tests.unit.model.families import tiny
from tests.unit.model.helpers import CPU, rows_of

TEXTS = ("您好，您的快递到了。", "中奖了，请先交税", "See you at three tomorrow, then")


def adapted(base_folder, train, method=METHODS["lora"]):
    """The tiny model with adapters of random numbers."""
    model = attach_adapter(load_base(method, base_folder, CPU), train)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    return model


def logits_and_gradients(model, prompt) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits of three texts, and each adapter's gradient of the sum of their squares."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    batch = Collator(prompt.tokenizer.pad_token_id)(rows_of(prompt, TEXTS))
    logits = completion_logits(model, batch, len(prompt.prefix))
    gradients = torch.autograd.grad(logits.float().square().sum(), list(trained.values()), allow_unused=True)
    reached = {name: gradient for name, gradient in zip(trained, gradients, strict=True) if gradient is not None}
    return logits.detach().float(), reached


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", ["lora", "qlora", "qlora-dq"])
@pytest.mark.parametrize(
    "change",
    [{}, {"r": 5, "lora_alpha": 7}, {"target_modules": ["q_proj", "v_proj", "down_proj"]}, {"lora_dropout": 0.3}],
)
def test_fused_layers_have_the_outputs_and_gradients_of_single_ones(
    base_folder, prompt, train_params, change, method, compiled
):
    train = dataclasses.replace(train_params, **change)
    model = adapted(base_folder, train, METHODS[method]).eval()  # without dropout
    logits, gradients = logits_and_gradients(model, prompt)
    fused = FusedAdapters(model)
    assert len(fused.layers) == (0 if "lora_dropout" in change else len(gradients) // 2)
    if compiled:
        for layer in model.get_base_model().model.layers:
            layer.compile(dynamic=True)
    again, fused_gradients = logits_and_gradients(model, prompt)
    assert error(again, logits) < 1e-5
    assert gradients.keys() == fused_gradients.keys()
    assert max(error(fused_gradients[name], expected) for name, expected in gradients.items()) < 1e-4


def test_the_compiler_takes_sizes_and_scales_of_fused_layers_as_they_are(base_folder, prompt, train_params):
    """A number on the CPU among its inputs costs 45 s of building on a GPU machine; a size, faster kernels."""
    inputs: list[tuple[str, object]] = []

    def record(graph, examples):
        inputs.extend((node.name, node.meta["example_value"]) for node in graph.graph.nodes if node.op == "placeholder")
        return graph.forward

    torch.compiler.reset()  # after eight other backends for one function, torch compiles no more
    model = adapted(base_folder, train_params)
    FusedAdapters(model)
    for layer in model.get_base_model().model.layers:
        layer.compile(dynamic=True, backend=record)
    logits_and_gradients(model, prompt)
    fused = [value for name, value in inputs if "fused" in name]
    assert len(fused) >= 8  # the memory and scale of four groups
    assert all(isinstance(size, int) for value in fused for size in value.shape)
    names = [name for name, value in inputs if getattr(value, "dtype", None) == torch.float64]
    assert not any("fused" in name or "scaling_default" in name for name in names)


def test_a_model_may_change_an_output_in_place(base_folder, prompt, train_params):
    """As Gemma 3n and OLMo do."""
    model = adapted(base_folder, train_params)
    for layer in model.get_base_model().model.layers:
        layer.self_attn.k_proj.register_forward_hook(lambda module, inputs, y: y.mul_(0.5))
    logits, gradients = logits_and_gradients(model, prompt)
    FusedAdapters(model)
    again, fused_gradients = logits_and_gradients(model, prompt)
    assert error(again, logits) < 1e-5
    assert max(error(fused_gradients[name], expected) for name, expected in gradients.items()) < 1e-4


def test_three_layers_that_share_an_input_take_one_product(base_folder, prompt, train_params, monkeypatch):
    products = []
    original = torch.nn.functional.linear

    def counting(x, weight, bias=None):
        products.append(tuple(weight.shape))
        return original(x, weight, bias)

    fused = FusedAdapters(model := adapted(base_folder, train_params))
    monkeypatch.setattr("stages.model.fused_lora.functional.linear", counting)
    logits_and_gradients(model, prompt)
    groups = {id(layer.fused): tuple(layer.fused.weights.weight.shape) for layer in fused.layers}
    assert len(groups) == 2 * 4  # in two decoder layers: q, k, v; o; gate, up; down
    assert sorted(set(groups.values())) == sorted(set(groups.values()) & set(products))


def test_in_bfloat16_rounding_is_of_the_same_size(base_folder, prompt, train_params):
    exact = logits_and_gradients(adapted(base_folder, train_params, Method(dtype="float32")), prompt)[1]
    model = adapted(base_folder, train_params, Method(dtype="bfloat16"))
    single = logits_and_gradients(model, prompt)[1]
    FusedAdapters(model)
    fused = logits_and_gradients(model, prompt)[1]

    def mean_error(found):
        return sum(error(found[name], expected) for name, expected in exact.items()) / len(exact)

    assert mean_error(fused) < 1.5 * mean_error(single)


def test_a_changed_adapter_counts_in_the_next_pass(base_folder, prompt, train_params):
    model = adapted(base_folder, train_params)
    FusedAdapters(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(-2)
    fused = logits_and_gradients(model, prompt)[0]
    single = adapted(base_folder, train_params)
    with torch.no_grad():
        for parameter in single.parameters():
            if parameter.requires_grad:
                parameter.mul_(-2)
    assert error(fused, logits_and_gradients(single, prompt)[0]) < 1e-5


def test_fused_layers_can_be_undone_merged_and_switched_off(base_folder, prompt, train_params):
    model = adapted(base_folder, train_params).eval()
    logits, _ = logits_and_gradients(model, prompt)
    keys = model.state_dict().keys()
    with model.disable_adapter(), torch.no_grad():
        batch = Collator(prompt.tokenizer.pad_token_id)(rows_of(prompt, TEXTS))
        base = completion_logits(model, batch, len(prompt.prefix)).float()
    fused = FusedAdapters(model)
    assert model.state_dict().keys() == keys
    with model.disable_adapter(), torch.no_grad():
        assert error(completion_logits(model, batch, len(prompt.prefix)).float(), base) < 1e-5
    fused.undo()
    assert error(logits_and_gradients(model, prompt)[0], logits) < 1e-5
    FusedAdapters(model)
    merge_unquantized(model)
    with torch.no_grad():
        assert error(completion_logits(model, batch, len(prompt.prefix)).float(), logits) < 1e-4


def test_layers_that_the_model_changes_in_training_stay_as_they_are(tokenizer, prompt, train_params, tmp_path):
    model = adapted(tiny("Gemma 3n", tokenizer, tmp_path), train_params).train()
    logits, gradients = logits_and_gradients(model, prompt)
    fused = FusedAdapters(model)
    adapters = [name for name, _ in model.named_modules() if name.endswith("lora_A")]
    changed = [name for name in adapters if name.split(".")[-2] in ("prediction_coefs", "correction_coefs")]
    assert len(changed) == 4  # in two layers
    assert len(fused.layers) == len(adapters) - len(changed)
    again, fused_gradients = logits_and_gradients(model, prompt)
    assert error(again, logits) < 1e-5
    assert max(error(fused_gradients[name], expected) for name, expected in gradients.items()) < 1e-4


def test_8_bit_layers_stay_as_they_are(base_folder, prompt, train_params):
    model = adapted(base_folder, train_params, METHODS["lora-int8"])
    assert FusedAdapters(model).layers == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the unpacking kernel needs a GPU")
@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [1088, 1001])  # with 1001, scales go on in the next row
def test_the_kernel_unpacks_what_bitsandbytes_unpacks(below, kind, nested, dtype, width):
    torch.manual_seed(0)
    heights = (95,) if below else (95, 32, 47)
    weights = [torch.randn(height, width, dtype=dtype, device="cuda") for height in heights]
    packed = [quantize_4bit(weight, quant_type=kind, compress_statistics=nested) for weight in weights]
    frozen = [part for codes, state in packed for part in frozen_of(codes, state)]
    beside = torch.randn((48, width) if below else (sum(heights), 48), dtype=dtype, device="cuda")
    state = packed[0][1]
    found = unpacked(frozen, state.code, beside, [*heights, width], state.blocksize, kind)
    expected = torch.cat([dequantize_4bit(codes, state) for codes, state in packed])
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-10}[dtype]
    torch.testing.assert_close(found[: sum(heights), :width], expected, rtol=tolerance, atol=0)
    assert torch.equal(found[sum(heights) :] if below else found[:, width:], beside)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the copying kernel needs a GPU")
def test_the_kernel_copies_matrices_into_gaps():
    from stages.model.copy_kernel import copying

    torch.manual_seed(0)
    memory = torch.zeros(300, 700, dtype=torch.bfloat16, device="cuda")
    sources = [torch.randn(shape, device="cuda") for shape in [(300, 5), (16, 640), (1, 1), (130, 16)]]
    places = [memory[:, 690:695], memory[20:36, :640], memory[:1, 650:651], memory[100:230, 660:676]]
    copy = copying(list(zip(places, sources, strict=True)))
    sources[0].mul_(2)
    copy()
    for place, source in zip(places, sources, strict=True):
        assert torch.equal(place, source.bfloat16())
    assert int((memory != 0).sum()) == sum(int((source.bfloat16() != 0).sum()) for source in sources)
