"""The recipes: their registry, one of them run on the tiny model, and what is compared."""

import importlib.util
import json

import pytest
import torch
from transformers import AutoConfig, TrainerControl, TrainerState, TrainingArguments

from benchmarks import training_speed
from benchmarks.recipes import FORWARD_ONLY, RECIPES, kernels, load_recipe, setting
from benchmarks.recipes.kernels import KernelProfile, kind_of
from benchmarks.recipes.measure import measure_recipe
from benchmarks.training_speed import run_recipe, with_ratios
from stages.artifacts import write_json
from stages.errors import UserError

MEASURED = {
    "batch", "loss", "samples_per_second", "samples_per_second_min", "samples_per_second_max", "tokens_per_second",
    "model_flop_utilization", "peak_allocated_bytes", "peak_reserved_bytes", "seconds_to_load",
    "seconds_to_first_step", "kernel_milliseconds", "environment",
}  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch, base_folder, changed, sample_texts):
    """A folder with params.yaml, the tiny model and few texts, and windows that end at once."""
    changed({})  # writes params.yaml
    (tmp_path / "models").mkdir()
    (tmp_path / "models/base").symlink_to(base_folder)
    (tmp_path / "data/processed").mkdir(parents=True)
    rows = [{"input": text[:40], "label": bool(n % 2)} for n, text in enumerate(sample_texts[:48])]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "data/processed/train.jsonl").write_text(lines, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setting, "WARM_UP", 0.0)
    monkeypatch.setattr(setting, "WINDOW", 0.0)
    return tmp_path


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_function_of_its_name(name):
    assert callable(load_recipe(name))
    assert set(FORWARD_ONLY) < set(RECIPES)


# The peers' recipes use the older name, which their own versions of transformers know.
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing:FutureWarning")
def test_stock_and_plain_start_from_the_same_loss(project):
    blocks = {name: measure_recipe(name, 4) for name in ("stock", "plain")}
    for block in blocks.values():
        assert block.keys() == MEASURED
        assert block["batch"] == 4
        assert block["samples_per_second"] > 0
        assert block["kernel_milliseconds"]["products"] > 0
        assert block["kernel_milliseconds"]["launched"] > 100
    assert blocks["stock"]["loss"] == pytest.approx(blocks["plain"]["loss"], abs=training_speed.TOLERANCE)


def test_long_texts_are_random_and_their_flops_count_attention(project):
    block = measure_recipe("plain", 2, 96)
    assert block.keys() == MEASURED | {"tokens", "flops_per_second"}
    # The last token of the answer is no input.
    assert block["tokens_per_second"] / block["samples_per_second"] == pytest.approx(95)
    config = AutoConfig.from_pretrained("models/base")
    layers, width, inner = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    heads, key_heads = config.num_attention_heads, config.num_key_value_heads
    size = width // heads
    weights = width * size * (2 * heads + 2 * key_heads) + 3 * width * inner
    attention = sum(2 * 2 * heads * size * seen for seen in range(1, 96))  # forward: scores, then values
    flops = layers * (2 * 2 * weights * 95 + 3 * attention)
    assert block["flops_per_second"] == pytest.approx(flops * block["samples_per_second"])


@pytest.mark.parametrize(
    ("kind", "kernel"),
    [
        ("products", "nvjet_tst_128x256_64x4_1x2_h_bz_coopA_TNT"),
        ("products", "cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<cute::Copy_Atom>>"),
        ("products", "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>"),
        ("products", "triton_tem_fused_mm_3"),
        ("element-wise, compiled", "triton_red_fused__to_copy_mm_mul_scaled_dot_product_flash_attention_7"),
        ("attention", "void pytorch_flash::flash_bwd_kernel<Flash_bwd_kernel_traits<cutlass::bfloat16_t>>"),
        ("unpacking", "void kDequantizeBlockwise<__nv_bfloat16, 512, 64, 8, 2>(float*, unsigned char*)"),
        ("unpacking", "unpack_numbers"),
        ("copies", "void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda>"),
        ("copies", "Memcpy DtoD (Device -> Device)"),
        ("copies", "copy_numbers"),
        ("other", "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>"),
    ],
)
def test_kernels_are_told_by_their_names(kind, kernel):
    assert kind_of(kernel) == kind


def test_a_profile_has_the_time_and_number_of_a_steps_operators():
    profile = KernelProfile(torch.device("cpu"))
    a, steps = torch.ones(64, 64), 0
    while not profile.count():
        a.mm(a), a.mm(a), torch.cat([a, a])
        steps += 1
    assert steps == kernels.STEPS
    assert profile.found["launched"] >= 3
    assert profile.found["products"] > 0
    assert profile.found["copies"] > 0
    assert profile.count()  # and stays done


@pytest.mark.parametrize(("name", "package"), [("trl", "trl"), ("unsloth", "unsloth"), ("lora_tuned", "liger_kernel")])
def test_a_recipe_whose_package_is_missing_says_so(project, name, package, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda each, *more: None if each == package else found(each, *more))
    reason = measure_recipe(name, 4)["unavailable"]
    assert reason.startswith(f"{package} is not installed; this recipe needs it: pip install")


def test_a_recipe_that_fails_stands_in_the_table_with_its_reason(project, monkeypatch, capfd):
    def broken(setting):
        raise RuntimeError("no such kernel\nand more")

    monkeypatch.setattr("benchmarks.recipes.stock.article", broken)
    assert measure_recipe("article", 4) == {"unavailable": "RuntimeError: no such kernel"}
    assert "and more" in capfd.readouterr().err

    def ended(*command):
        raise UserError("`python -m benchmarks.recipes` ended with status 1")

    monkeypatch.setattr(training_speed, "run_module", ended)
    assert "ended with status 1" in run_recipe("article", 4)["unavailable"]


def test_a_step_that_is_not_what_it_is_counted_as_is_refused(tmp_path):
    """Unsloth's default of gradient_accumulation_steps is 2, which halved its rate."""
    arguments = TrainingArguments(str(tmp_path), per_device_train_batch_size=4, gradient_accumulation_steps=2)
    with pytest.raises(UserError, match="steps have 8 texts; expected 4"):
        setting.Stopwatch(torch.device("cpu"), 4).on_train_begin(arguments, TrainerState(), TrainerControl())


def test_other_blocks_are_kept_where_one_device_measured_them(tmp_path, monkeypatch):
    monkeypatch.setattr(training_speed, "environment", lambda device: {"device": "NVIDIA H100"})
    file = tmp_path / "race.json"
    assert training_speed.kept_blocks(file, None) == {}
    blocks = {"article": {"loss": 2.0, "environment": {"device": "NVIDIA H100"}}, "liger": {"unavailable": "no room"}}
    write_json(file, blocks | {"ratios": {}})
    assert training_speed.kept_blocks(file, None) == blocks
    with pytest.raises(UserError, match="found --tokens None, and here 4096"):
        training_speed.kept_blocks(file, 4096)
    write_json(file, {"article": {"environment": {"device": "NVIDIA H200"}}})
    with pytest.raises(UserError, match="found figures of NVIDIA H200, and this is NVIDIA H100"):
        training_speed.kept_blocks(file, None)


def test_only_recipes_that_compute_the_same_are_compared():
    article = {"loss": 2.0, "samples_per_second": 10.0, "peak_allocated_bytes": 100}
    speed = {"loss": 2.01, "samples_per_second": 50.0, "peak_allocated_bytes": 20}
    ratios = with_ratios({"article": article, "speed": speed, "liger": {"unavailable": "no room"}})["ratios"]
    assert ratios == {"speed_over_article": 5.0}
    with pytest.raises(UserError, match="losses on the same batch differ"):
        with_ratios({"article": article, "speed": speed | {"loss": 2.1}})
    assert with_ratios({"article": article, "lora_tuned_64": speed | {"loss": 2.1}})["ratios"] == {}  # other weights
