"""The pages show the committed rates, times and memory of machines."""

import itertools

import pytest

from tests.conftest import ROOT
from tests.unit.pages.committed import COMMITTED, RESULTS, read, table_row

pytestmark = COMMITTED


def test_the_page_on_the_server_shows_its_json():
    page = (ROOT / "docs/serve.md").read_text()
    found = [read(RESULTS / "serving.json")[name] for name in ("default-h200", "default-amd")]
    shares = [f"{each['best_share_of_offline']:.0%}".replace("%", " %") for each in found]
    assert f"{shares[0]} of the offline rate on the H200, and to {shares[1]} on the CPU" in page
    assert "within {:.1f} and {:.1f} times".format(*(each["p99_at_half_in_batches"] for each in found)) in page
    assert (
        "| offline | {:.0f} texts/s | | {:.1f} texts/s | |".format(*(o["offline_texts_per_second"] for o in found))
        in page
    )
    for share in ("0.25", "0.50", "0.90", "1.25"):
        cells = []
        for each, digits in zip(found, (0, 1), strict=True):
            rate = each["rates"][share]
            cells += [
                f"{rate['texts_per_second']:.{digits}f}",
                f"{rate['p50_seconds']:.1f} s, {rate['p99_seconds']:.1f} s",
            ]
        assert table_row(f"{float(share):g}", *cells) in page


def test_the_table_and_the_ratios_of_the_race_are_those_of_its_json():
    page, race = " ".join((ROOT / "docs/performance.md").read_text().split()), read(RESULTS / "race.json")
    blocks = {name: block for name, block in race.items() if name != "ratios"}
    for block in blocks.values():
        keys = ("samples_per_second", "samples_per_second_min", "samples_per_second_max")
        rate, low, high = (f"{block[key]:.0f}" if block[key] >= 100 else f"{block[key]:.1f}" for key in keys)
        cells = (
            f"| {rate} [{low}, {high}] | {100 * block['model_flop_utilization']:.1f} % "
            f"| {block['peak_allocated_bytes'] / 1e9:.1f} | {block['peak_reserved_bytes'] / 1e9:.1f} "
            f"| {block['seconds_to_first_step']:.0f} |"
        )
        assert cells in page
    ratios = {
        f"{name} over {other}": blocks[name]["samples_per_second"] / blocks[other]["samples_per_second"]
        for name, other in itertools.permutations(blocks, 2)
    }
    assert (
        f"trains {ratios['speed over article']:.0f} times as many texts a second as the article's recipe and "
        f"{ratios['speed over unsloth']:.0f} times as many as Unsloth. With 64 texts a step it trains "
        f"{ratios['speed_64 over unsloth_64']:.1f} times as many as Unsloth and "
        f"{ratios['speed_64 over trl_tuned_64']:.1f} times as many as a tuned TRL. Profile `memory` trains "
        f"{ratios['memory over article']:.0f} times as many as the article's recipe in "
        f"{100 * race['ratios']['memory_peak_over_article']:.0f} % of its allocated memory."
    ) in page
    assert f"{ratios['speed over plain']:.0f} times" in (ROOT / "docs/gpu.md").read_text()
    for name in ("README.md", "README.zh-CN.md"):
        text = (ROOT / name).read_text()
        times, first, last = "{:.0f} {:.1f} {:.0f}".format(
            *(ratios[pair] for pair in ("speed over article", "speed_64 over unsloth_64", "speed over unsloth"))
        ).split()
        part = f"{100 * race['ratios']['memory_peak_over_article']:.0f} %"
        english = f"is {times} times as fast", f"{first} to {last} times Unsloth", f"takes {part} of its memory"
        chinese = f"文章做法的 {times} 倍、Unsloth 的 {first} 到 {last} 倍", f"文章做法 {part} 的显存"
        assert all(words in text for words in (english if name == "README.md" else chinese))


def test_the_train_stage_beside_a_stock_trainer_is_that_of_its_json():
    page, found = " ".join((ROOT / "docs/performance.md").read_text().split()), read(RESULTS / "stage.json")
    memory = {name: found[name]["peak_memory_bytes"] / 1e9 for name in ("stage", "stock")}
    times = f"{found['stock_over_stage']:.1f} times as long in {memory['stock'] / memory['stage']:.1f} times the memory"
    assert times in page
    assert f"Both took {found['steps']} steps" in page
    for row, name in (("train stage", "stage"), ("stock Trainer, no checkpointing, no dropout", "stock")):
        assert f"| {row} | {found[name]['seconds']:.0f} | {memory[name]:.1f} |" in page
    other = read(RESULTS / "cpu/xeon_float32/stage.json")
    ours, stock = (other[name] for name in ("stage", "stock"))
    assert (
        f"{other['stock_over_stage']:.1f} times as long ({ours['seconds']:.0f} and {stock['seconds']:,.0f} s) in "
        f"{stock['peak_memory_bytes'] / ours['peak_memory_bytes']:.1f} times the memory"
    ) in page


def test_the_page_of_levers_shows_its_json():
    page = " ".join((ROOT / "docs/performance.md").read_text().split())
    levers = read(RESULTS / "h100/levers.json")
    for name, begin in (
        ("single_16", "16 texts a step, single adapters"),
        ("single_64", "64 texts a step, single adapters"),
        ("fused_16", "the same, fused"),
        ("fused_64", "the same, fused"),
    ):
        block = levers["training_qwen2_1.5b"][name]
        kernels = block["kernel_milliseconds"]
        row = (
            f"| {begin} | {block['milliseconds']:.1f} | {kernels['products']:.1f} | {kernels['launched']:,} "
            f"| {spread(block)} | {block['peak_allocated_gb']:.1f} |"
        )
        assert row in page
        assert sum(kernels.values()) - kernels["launched"] == pytest.approx(block["milliseconds"], abs=0.01)
    found = read(RESULTS / "h200/products.json")
    for batch, block in found["training_by_texts_a_step"].items():
        kinds = [block["kernel_milliseconds"][kind] for kind in ("products", "triton", "attention", "copies", "other")]
        cells = (f"{milliseconds:.1f}" for milliseconds in (block["milliseconds"], *kinds))
        assert table_row(f"{batch} texts a step", *cells) in page
    small, large = (found["milliseconds_by_tokens"][tokens] for tokens in ("1664", "6656"))
    both = {name: [f"{sum(block[name].values()):.1f}" for block in (small, large)] for name in large}
    products = (
        f"over 1,664 tokens take {both['bfloat16'][0]} ms in bfloat16 (by cuBLASLt {both['bfloat16, cublasLt'][0]}), "
        f"over 6,656 tokens {both['bfloat16'][1]} ms ({both['bfloat16, cublasLt'][1]})"
    )
    assert products in page
    assert "In float8 the products would take {} and {} ms".format(*both["float8"]) in page
    assert f"They err by {found['float8_relative_error']:.1%}".replace("%", " %") in page
    filled = levers["not_kept_qwen2_1.5b"]["filled_to_128_tokens"]["speed_16"]
    assert (
        "they trained {:.1f} texts/s instead of {:.1f}".format(*(median(filled[when]) for when in ("after", "before")))
        in page
    )
    gemma = levers["scoring_gemma_3_270m"]
    for block, row in (
        (levers["scoring_qwen2_1.5b"], "Qwen2-1.5B, merged, 32,768"),
        (gemma["qlora_4096"], "Gemma-3-270m, `qlora`, 4,096"),
        (gemma["qlora_dequantized_4096"], "Gemma-3-270m, merged, 4,096"),
        (gemma["qlora_dequantized_32768"], "Gemma-3-270m, merged, 32,768"),
    ):
        fast = spread(block["speed"]) if "Qwen2" in row else f"{block['speed']['samples_per_second'][-1]:,}"
        seconds = [block[profile]["milliseconds"] / 1000 for profile in ("plain", "speed")]
        cells = f"| {row} | {spread(block['plain'])} | {fast} | {seconds[0]:.2f} → {seconds[1]:.2f} |"
        assert cells in page
    served = " ".join((ROOT / "docs/serve.md").read_text().split())
    pool = gemma["sample_pool"]
    assert f"scored {pool['speed']:,.0f} texts/s where `plain` scored {pool['plain']:.0f}" in served


def median(block: dict) -> float:
    """The middle one of a block's lowest, median and highest rate."""
    return sorted(block["samples_per_second"])[1]


def spread(block: dict) -> str:
    """Slowest and fastest window of a block."""
    return f"{min(block['samples_per_second']):,} to {max(block['samples_per_second']):,}"


def test_the_table_of_gpus_is_that_of_its_json():
    page, scaling = " ".join((ROOT / "docs/multi-gpu.md").read_text().split()), read(RESULTS / "scaling.json")
    one = scaling["1"]
    for name in ("train 256", "train 128", "train 64", "train 16", "evaluate"):
        cells = ["evaluate (scoring)" if name == "evaluate" else f"{name.replace(' ', ', ')} texts a step"]
        for number in ("1", "2", "4"):
            block = scaling[number][name]
            low, high = (block[f"samples_per_second_{end}"] for end in ("min", "max"))
            cells.append(f"{block['samples_per_second']:.0f} [{low:.0f}, {high:.0f}]")
            if number != "1":
                worst = low / one[name]["samples_per_second_max"] / int(number)
                best = high / one[name]["samples_per_second_min"] / int(number)
                cells.append(f"{block['efficiency']:.2f} [{worst:.2f}, {best:.2f}]".replace("0.", "."))
        peaks = [scaling[number][name].get("peak_memory_bytes", 0) / 1e9 for number in ("1", "2", "4")]
        cells.append("; ".join(f"{peak:.1f}" for peak in peaks) if any(peaks) else "")
        assert " ".join(table_row(*cells).split()) in page
    found = read(RESULTS / "h200/predict_gpus.json")
    rows = found["rows"]["to"] - found["rows"]["from"]
    seconds = [found["seconds"][number] for number in ("1", "2", "4")]
    one_gpu, two, four = (rows / each for each in seconds)
    assert (
        "about {:,}, {:,} and {:,} texts a second".format(*(round(rate, -2) for rate in map(int, (one_gpu, two, four))))
        in page
    )
    assert f"{rows:,} of the texts after warm-up, in {seconds[0]}, {seconds[1]} and {seconds[2]} s" in page
    assert f"(efficiency {two / one_gpu / 2:.2f} and {four / one_gpu / 4:.2f})".replace("0.", ".") in page


def test_the_table_of_sharded_layers_is_that_of_its_json():
    page = (ROOT / "docs/multi-gpu.md").read_text()
    runs = [
        read(RESULTS / name)["qwen2-7b"] for name in ("sharded.json", "h200/sharded.json", "h200/sharded_4gpus.json")
    ]
    for method, title in (("lora", "LoRA bf16"), ("qlora-dq", "QLoRA, double quant.")):
        for checkpointed in ("", ", checkpointed"):
            cells = [title + ", checkpointing" * bool(checkpointed)]
            for number, found in ((1, runs[:1]), (2, runs[:1]), (1, runs[1:2]), (4, runs[1:])):
                blocks = [run[f"{method}, {number} process(es){checkpointed}"] for run in found]
                rank = blocks[0]["ranks"]["0"]
                peak = f"{rank['peak'] / 1e9:.1f}" if "peak" in rank else "out of memory"
                seconds = ", ".join(f"{block['ranks']['0']['seconds']:.2f} s" for block in blocks if "peak" in rank)
                cells.append(f"{peak} ({blocks[0]['predicted_peak'] / 1e9:.1f})" + f"; {seconds}" * bool(seconds))
            assert table_row(*cells) in page


def test_the_tables_of_long_texts_and_of_loading_are_those_of_their_json():
    page = (ROOT / "docs/performance.md").read_text()
    rows = [
        (gpu, tokens, name, block)
        for gpu in ("H100", "H200")
        for tokens, blocks in read(RESULTS / gpu.lower() / "long_texts.json").items()
        for name, block in blocks.items()
    ]
    for gpu, tokens, name, block in rows:
        rates = [block[key] * int(tokens) for key in ("samples_per_second_min", "samples_per_second_max")]
        cells = [
            {"speed_lora": "LoRA bf16", "speed_nf4": "QLoRA, NF4"}[name.rpartition("_")[0]] + f", {gpu}",
            f"{int(tokens):,}",
            str(block["batch"]),
            f"{block['tokens_per_second']:,.0f} [{rates[0]:,.0f}, {rates[1]:,.0f}]",
            f"{block['flops_per_second'] / 1e12:.0f}",
            f"{block['peak_allocated_bytes'] / 1e9:.1f}",
        ]
        assert table_row(*cells) in page
    loading = read(RESULTS / "h200/loading.json")
    seconds = [loading[shape]["stage_seconds"] for shape in ("qwen2-1.5b", "qwen2-7b")]
    assert "took {:.0f} s for 1.5B and {:.0f} s for 7B by the clock".format(*seconds) in page
    for shape, blocks in loading.items():
        for name, block in blocks.items():
            if name in ("environment", "stage_seconds"):
                continue
            measured = block["measured"]
            method = "`qlora`, saved in 4 bits before" if name == "qlora-prequantized" else f"`{name}`"
            cells = [
                shape.rpartition("-")[2].upper(),
                method,
                f"{block['facts']['weight_bytes'] / 1e9:.2f}",
                f"{measured['peak_bytes'] / 1e9:.2f}",
                f"{measured['load_seconds_cold']:.1f}",
                f"{measured['load_seconds_warm']:.1f}",
                f"{block['facts']['quantization_error']:.4f}",
                f"{measured['forward_tokens_per_second']:,.0f}",
            ]
            assert table_row(*cells) in page


def test_the_table_of_smaller_cards_is_that_of_its_json():
    page = (ROOT / "docs/gpu.md").read_text()
    for card in read(RESULTS / "h200/cards_end_to_end.json"):
        stages, rate = card["stages"], card["training_samples_per_second"]
        memory = [
            f"{stages[name]['peak_allocated_bytes'] / 1e9:.1f} ({stages[name]['peak_reserved_bytes'] / 1e9:.1f})"
            for name in ("train", "evaluate")
        ]
        assert max(block["peak_reserved_bytes"] for block in stages.values()) <= card["gb"] * 1e9 - 0.5e9
        seconds = sum(block["seconds"] for name, block in stages.items() if name != "prepare")
        cells = [
            f"{card['gb']:.0f} GB",
            card["shape"].rpartition("-")[2].upper(),
            f"`{card['method']}`, `{card['profile']}`",
            str(card["batch"]),
            *memory,
            f"{rate:.1f}",
            f"{20000 / rate / 60:.0f}",
            f"{seconds:.0f}",
        ]
        assert table_row(*cells) in page


def test_the_table_of_fused_4_bit_layers_is_that_of_its_json():
    page = " ".join((ROOT / "docs/performance.md").read_text().split())
    found = read(RESULTS / "h200/fused_nf4.json")
    before, after, unsloth = found["before"], found["after"], found["unsloth_checkpointed"]
    for title, block in (
        ("`speed`, single adapters", before["speed_nf4"]),
        ("`speed`, fused", after["speed_nf4"]),
        ("`memory`, single adapters", before["memory"]),
        ("`memory`, fused", after["memory"]),
        ("Unsloth with its checkpointing ⁴", unsloth),
    ):
        rate, low, high = (round(block[f"samples_per_second{end}"]) for end in ("", "_min", "_max"))
        kernels = {kind: value for kind, value in block["kernel_milliseconds"].items() if kind != "launched"}
        unpacking = kernels["other"] + kernels.get("unpacking", 0)
        shown = (
            kernels["products"],
            kernels["element-wise, compiled"],
            kernels["attention"],
            unpacking,
            kernels["copies"],
        )
        cells = (f"{milliseconds:.1f}" for milliseconds in (sum(kernels.values()), *shown))
        row = table_row(title, f"{rate} [{low}, {high}]", f"{block['peak_allocated_bytes'] / 1e9:.2f}", *cells)
        assert row in page
    more = [after[name]["samples_per_second"] / before[name]["samples_per_second"] for name in after]
    assert [round(4 * each) / 4 for each in more] == [1.25, 1.25]  # "a quarter more"
    peaks = [block["speed_nf4"]["peak_allocated_bytes"] for block in (after, before)]
    levers = read(RESULTS / "h100/levers.json")
    gigabytes = [levers["training_qwen2_1.5b"][name]["peak_allocated_gb"] for name in ("fused_16", "single_16")]
    least, most = sorted(new / old - 1 for new, old in (peaks, gigabytes))
    memory = f"where adapters are fused {100 * least:.0f} to {100 * most:.0f} % more"
    assert memory in (ROOT / "docs/gpu.md").read_text()
    copied = levers["not_kept_qwen2_1.5b"]["fused_adapters_of_nf4_layers"]
    gained = (f"{100 * (median(block['after']) / median(block['before']) - 1):.0f} %" for block in copied.values())
    assert "gained {} in `speed` and {} in `memory` on an H100".format(*gained) in page
    rates = {name: block["samples_per_second"] for name, block in (("ours", after["memory"]), ("unsloth", unsloth))}
    assert f"{rates['ours'] / rates['unsloth']:.1f} times as many texts as Unsloth with its checkpointing" in page
    assert f"Eight times as many would take {16e3 / (8 * rates['unsloth']):.1f} ms" in page
    kept = found["memory_budget_0.3"]["ilp"]
    assert f"{kept['samples_per_second']:.0f} texts/s in {kept['peak_allocated_bytes'] / 1e9:.2f} GB" in page
    small, large = (found["unpacking_milliseconds"][f"qwen2-{size}, NF4"] for size in ("1.5b", "7b"))
    words = "1.5B in {:.1f} ms instead of {:.1f}, 7B in {:.1f} instead of {:.1f}"
    assert words.format(*(block[by] for block in (small, large) for by in ("kernel, 1024", "bitsandbytes"))) in page


def test_the_table_of_profile_memory_is_that_of_its_json():
    page = (ROOT / "docs/performance.md").read_text()
    found = read(RESULTS / "h200/memory_profile.json")
    for name, title in (
        ("checkpointed", "16 texts a step, torch's checkpointing around plain layers"),
        ("budget_0", "the same, layers compiled with an activation budget of 0"),
        ("budget_0.2", "with a budget of .2 of the activations"),
        ("budget_0_64", "64 texts a step, budget of 0"),
    ):
        block = found[name]
        rate, low, high = (round(block[f"samples_per_second{end}"]) for end in ("", "_min", "_max"))
        gigabytes, seconds = block["peak_allocated_bytes"] / 1e9, block["seconds_to_first_step"]
        assert f"| {title} | {rate} [{low}, {high}] | {gigabytes:.2f} | {seconds:.0f} |" in page
    before, now = found["checkpointed"], found["budget_0"]
    later = now["seconds_to_first_step"] - before["seconds_to_first_step"]
    saved = 1 / before["samples_per_second"] - 1 / now["samples_per_second"]
    words = " ".join(page.split())
    assert f"compiling pays from about {round(later / saved, -3):,.0f} texts on" in words
    assert f"{later:.0f} s more to the first step, {saved * 1e3:.1f} ms less for each text" in words


def test_the_table_of_trainings_by_several_gpus_is_that_of_its_json():
    page, runs = (ROOT / "docs/multi-gpu.md").read_text(), read(RESULTS / "h200/gpus.json")["runs"]
    for number, word in ((1, "one"), (2, "two"), (4, "four")):
        of_number = sorted((run for run in runs if run["gpus"] == number), key=lambda run: run["seed"])
        assert [run["seed"] for run in of_number] == [1, 2, 3]
        precisions = [run["valid"]["average_precision"] for run in of_number]
        figures = [f"{value:.4f}".removeprefix("0") for value in (*precisions, sum(precisions) / 3)]
        peak = max(run["peak_memory_bytes"] for run in of_number) / 1e9
        assert table_row(word, *figures, f"{peak:.1f}") in page
    fast = read(RESULTS / "h200/rank.json")["fast merged"]
    text = f"rank correlation {fast['spearman']:.5f}, mean difference {fast['mean']:.3f}".replace(" 0.", " .")
    assert text in " ".join((ROOT / "docs/performance.md").read_text().split())
