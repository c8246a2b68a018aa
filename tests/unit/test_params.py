import ast
import dataclasses
import typing

import numpy as np
import pytest
import yaml
from ruamel.yaml import YAML

from stages import params
from stages.classifier.systems import PARTS
from stages.fetch.sources import SOURCES
from stages.metrics import ThresholdRule, choose_threshold, fit_calibration
from stages.params import ParamsError
from stages.prepare.chunks import Dialogue, Utterance, is_fraud
from stages.select.checkpoint import chosen_row
from stages.select.system import SystemScores, choose_system
from stages.text.example import Example
from stages.train.arguments import PROFILES, checkpoints_activations
from stages.train.dataset import training_rows
from tests.conftest import ROOT

SHIPPED = ROOT / "params.yaml"


@pytest.mark.parametrize("method", params.read_yaml(SHIPPED)["methods"])
@pytest.mark.parametrize("model", ["gemma-3-270m", "smollm2-135m", "qwen2-1.5b", "qwen2-1.5b-modelscope", "qwen2.5-7b"])
def test_every_shipped_entry_loads(changed, method, model):
    loaded = params.load(changed({"method": method, "model": model}))
    assert loaded.method == loaded.methods[method]
    assert loaded.model.id


def test_the_article_changes_train_and_prompt_and_nothing_else(changed):
    ours, article = params.load(SHIPPED), params.load(changed({"method": "article"}))
    assert (article.train.lora_dropout, article.train.per_device_train_batch_size, article.train.eval_steps) == (
        0.2,
        16,
        100,
    )
    assert article.train.loss == "completion"
    assert "is_fraud" in article.prompt.instruction
    assert (article.evaluate, article.prepare) == (ours.evaluate, ours.prepare)
    chosen = article.select
    assert (chosen.checkpoint, chosen.metric, chosen.threshold) == ("best", "loss", "max_f1_on_valid")
    assert (chosen.calibration, chosen.cost) == ("temperature", ours.select.cost)


def test_all_problems_are_reported_at_once_with_the_nearest_name(changed):
    file = changed(
        {
            "train/learning_rte": 0.1,
            "train/r": 0,
            "train/loss": "lable",
            "train/lora_alpha": None,
            "prepare/seed": "one",
            "select/threshold": True,
            "method": "qlra",
            "optimizer": {},
        }
    )
    with pytest.raises(ParamsError) as error:
        params.load(file)
    message = str(error.value)
    for part in (
        "train.learning_rte: unknown key (did you mean learning_rate?)",
        "train.r: found 0; expected at least 1",
        "train.loss: found 'lable'; expected one of label, binary, completion (did you mean label?)",
        "train.lora_alpha: missing",
        "prepare.seed: found 'one'; expected int",
        "select.threshold: found True",
        "method: found 'qlra'; expected one of article, lora",
        "optimizer: unknown key",
    ):
        assert part in message


@pytest.mark.parametrize("written", ["5e-05", "5.0e-5", "0.00005", "5E-5"])
def test_numbers_as_dvc_writes_them(tmp_path, written):
    text = SHIPPED.read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("  learning_rate:")]
    file = tmp_path / "params.yaml"
    file.write_text(text.replace(line, f"  learning_rate: {written}"), encoding="utf-8")
    assert params.load(file).train.learning_rate == 5e-05


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"models/gemma-3-270m": {"source": "hub", "id": "a/b", "revision": "main"}}, "a commit of 40 hex digits"),
        ({"models/gemma-3-270m": {"source": "folder"}}, "needs the key path"),
        ({"models/gemma-3-270m": {"source": "folder", "path": "../x"}}, "a folder of the project, or an absolute path"),
        ({"train/warmup_steps": float("inf")}, "train.warmup_steps: found inf; expected a finite number"),
        ({"train/learning_rate": 10**400}, "train.learning_rate: found 1000"),
        ({"train/seed": 2**32}, "train.seed: found 4294967296; expected at least 0"),
        ({"prompt/instruction": "\ud800"}, "a text without lone surrogates"),
        ({"dataset": "smaple"}, "(did you mean sample?)"),
        ({"datasets/sample": {"pool": "a", "test": "b"}}, "either `pool` or `dialogues`, or all of"),
        ({"select/cost": {"fp": 1}}, "numbers above 0, a false alarm (fp) and a miss (fn)"),
        ({"select/cost": {"fp": float("inf"), "fn": 1}}, "numbers above 0, a false alarm (fp) and a miss (fn)"),
        ({"select/cost": {"fp": 1, "fn": float("nan")}}, "numbers above 0, a false alarm (fp) and a miss (fn)"),
        ({"prepare/balance": ["dev"]}, "balance: found 'dev'; expected some of train, valid, test"),
        ({"prepare/chunk_characters": []}, "expected whole numbers above 0"),
        ({"evaluate/further_sets": {"test": "data/raw/x.jsonl"}}, "further_sets: found the name 'test'"),
        ({"evaluate/further_sets": 3}, "further_sets"),
        ({"evaluate/further_sets": {"errors": "data/raw/x.jsonl"}}, "further_sets: found the name 'errors'"),
        ({"evaluate/without_categories": [1]}, "without_categories: found 1"),
        ({"evaluate/further_sets": {"sms": "/tmp/x.jsonl"}}, "further_sets.sms: found '/tmp/x.jsonl'"),
        ({"datasets/sample": {"pool": "elsewhere/x.jsonl"}}, "a file in data/raw or data/sample"),
        ({"datasets/sample": {"pool": "data/raw/../../x.jsonl"}}, "a file in data/raw or data/sample"),
        ({"prepare/test_fraction": 0.12}, "a multiple of 0.05"),
        ({"train/train_sampling_strategy": "random"}, "needs max_tokens_per_batch null"),
        ({"train/eval_steps": 1.9}, "a share below 1 or a whole number"),
        ({"train/optim": "adamw"}, "expected one of auto, adamw_torch"),
        ({"methods/lora": {"residency": "dequantized"}}, "there is nothing to unpack"),
        ({"methods/lora-int8": {"load_in_8bit": True, "residency": "sharded"}}, "8-bit weights can't be split"),
        ({"benchmark/methods": [1, ["lora"]]}, "1 is no entry of methods"),
        ({"method": ["qlora"]}, "method: found ['qlora']"),
        ({"methods/qlora": {"load_in_4bit": True, "load_in_8bit": True}}, "exclude each other"),
        ({"methods/article/train": {"learning_rat": 1}}, "methods.article.train.learning_rat: unknown key"),
        ({"prepare/valid_fraction": 0.6, "prepare/test_fraction": 0.4}, "leave less than 0.05 for train"),
        ({"benchmark/methods": ["qlor"]}, "'qlor' is no entry of methods (did you mean qlora?)"),
    ],
)
def test_values_that_make_no_sense_are_reported(changed, change, problem):
    with pytest.raises(ParamsError, match="problem") as error:
        params.load(changed(change))
    assert problem in str(error.value)


def test_an_entry_that_is_not_selected_is_checked_by_itself(changed):
    """params.yaml's comment: random batches, with max_tokens_per_batch null."""
    text = SHIPPED.read_text(encoding="utf-8")
    text = text.replace("  train_sampling_strategy: group_by_length", "  train_sampling_strategy: random")
    file = changed({})
    file.write_text(text.replace("  max_tokens_per_batch: 2048 ", "  max_tokens_per_batch: null "), encoding="utf-8")
    assert params.load(file).train.train_sampling_strategy == "random"
    file.write_text(file.read_text(encoding="utf-8").replace("method: qlora ", "method: qlora-gpu "), encoding="utf-8")
    with pytest.raises(ParamsError, match="methods.qlora-gpu.train: train_sampling_strategy random needs"):
        params.load(file)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"learning_rat": 1}, "methods.lora.train.learning_rat: unknown key (did you mean learning_rate?)"),
        ({"r": 0}, "methods.lora.train.r: found 0; expected at least 1"),
        ({"loss": "lable"}, "methods.lora.train.loss: found 'lable'"),
        ({"eval_steps": 1.9}, "methods.lora.train: eval_steps is 1.9; expected a share below 1"),
        ({"target_modules": [1]}, "methods.lora.train: target_modules is [1]"),
        (
            {"train_sampling_strategy": "random", "max_tokens_per_batch": 9},
            "methods.lora.train: train_sampling_strategy random needs",
        ),
    ],
)
def test_what_is_wrong_in_an_entry_that_is_not_selected_is_reported(changed, change, problem):
    with pytest.raises(ParamsError) as error:
        params.load(changed({"methods/lora/train": change}))
    assert problem in str(error.value)


def test_a_name_that_yaml_reads_as_a_number_is_to_be_quoted(changed):
    entry = {"pool": "data/raw/x.jsonl"}
    with pytest.raises(ParamsError, match=r'dataset: found 2024, which YAML reads as no text.*dataset: "2024"'):
        params.load(changed({"dataset": 2024, "datasets/2024": entry}))
    assert params.load(changed({"dataset": "2024", "datasets/2024": entry})).dataset_name == "2024"


def test_a_key_written_twice_is_an_error(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(SHIPPED.read_text(encoding="utf-8") + "\nmethod: lora\n", encoding="utf-8")
    with pytest.raises(ParamsError, match='line [0-9]+: found duplicate key "method" .*; remove one'):
        params.load(file)


@pytest.mark.parametrize("written", ["0512", "+512", "5_12", "0o1000", "0x200", "0b1000000000", "512"])
def test_a_whole_number_is_the_one_that_dvc_reads(tmp_path, written):
    """PyYAML alone reads 0512 as 330, an octal number."""
    file = tmp_path / "params.yaml"
    file.write_text(SHIPPED.read_text(encoding="utf-8").replace("max_length: 512", f"max_length: {written}"), "utf-8")
    assert params.load(file).prompt.max_length == 512
    assert YAML(typ="safe").load(file)["prompt"]["max_length"] == 512


@pytest.mark.parametrize("written", ["8:32", "1:30:00"])
def test_a_text_that_dvc_reads_as_no_number_is_refused(tmp_path, written):
    file = tmp_path / "params.yaml"
    file.write_text(SHIPPED.read_text(encoding="utf-8").replace("max_length: 512", f"max_length: {written}"), "utf-8")
    with pytest.raises(ParamsError, match=f"prompt.max_length: found '{written}'; expected int"):
        params.load(file)


@pytest.mark.parametrize("first", [{"a": {"b": {}}, "a.b": {}}, {"a.b": {}, "a": {"b": {}}}, {"2024": {}, 2024: {}}])
def test_two_entries_of_one_name_are_an_error(changed, first):
    entries = {
        name: {"b": {"pool": "data/raw/x"}} if "b" in entry else {"pool": "data/raw/y"} for name, entry in first.items()
    }
    file = changed({})
    raw = params.read_yaml(file)
    raw["datasets"] |= entries
    file.write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    with pytest.raises(ParamsError, match="datasets: '(a.b|2024)' is the name of two entries; rename one"):
        params.load(file)


@pytest.mark.parametrize(
    "text",
    ["a: " + "[" * 500, "? [a]\n: 1", "a: !!int abc", "a: 2024-13-45", "a: !!timestamp x", f"a: {'9' * 5000}",
     "a: &m {b: *m}", "a: &x [1]\nb: [*x, *x]", "a: !!python/object:os.system x", "- 1", "\0", "a: 'x"],
)  # fmt: skip
def test_yaml_that_makes_no_sense_is_an_error_of_a_sentence(tmp_path, text):
    file = tmp_path / "params.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ParamsError, match="params.yaml"):
        params.load(file)
    with pytest.raises(ParamsError, match="can't be read"):
        params.load(tmp_path)


def test_a_missing_file_says_where_to_stand(tmp_path):
    with pytest.raises(ParamsError, match="run from the project's root"):
        params.load(tmp_path / "params.yaml")


def test_params_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.load(SHIPPED).train.r = 1


# What code branches on, and what is passed on to transformers, torch or bitsandbytes as it is.
BRANCHED = {
    "residency", "source", "conflicting_labels", "speakers", "chunk_label", "train_sampling_strategy", "profile",
    "loss", "metric", "threshold", "mode", "truncation_side", "checkpoint", "calibration", "system",
}  # fmt: skip
PASSED_ON = {"dtype", "bnb_4bit_quant_type", "lr_scheduler_type", "optim"}
CLASSES = (params.Method, params.Model, params.Dataset, *params.SECTIONS.values())
LITERALS = {
    name: typing.get_args(hint)
    for cls in CLASSES
    for name, hint in typing.get_type_hints(cls).items()
    if typing.get_origin(hint) is typing.Literal
}


def named_values() -> set[str]:
    """The texts that the code compares with something, or looks up in a table."""
    found = []
    for file in (SHIPPED.parent / "stages").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                found += [node.left, *node.comparators]
            elif isinstance(node, ast.Dict):
                found += node.keys
            elif isinstance(node, ast.MatchValue):
                found.append(node.value)
    return {node.value for node in found if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_each_value_of_a_choice_has_its_branch():
    assert LITERALS.keys() - PASSED_ON == BRANCHED  # a new choice is sorted here on purpose
    assert {value for name in BRANCHED for value in LITERALS[name]} <= named_values()
    assert PROFILES.keys() == set(LITERALS["profile"])
    assert SOURCES.keys() == set(LITERALS["source"])
    assert typing.get_args(typing.get_type_hints(ThresholdRule)["name"]) == LITERALS["threshold"]


def branches(prompt) -> dict:
    """A call for each choice, with nothing but the choice left open."""
    shipped = params.load(SHIPPED)
    spoken = Dialogue([Utterance("text", True, 1)], first_flagged=1)
    history = [{"step": "1", "loss": "1", "average_precision": "1", "f1": "1"}]
    systems = {name: SystemScores(np.array([1.0, 0.0]), {}) for name in PARTS}
    example = Example("text", True, None, None, "file:1")

    def threshold(rule: str) -> float:
        select = dataclasses.asdict(shipped.select) | {"threshold": rule}
        return choose_threshold([True, False], [0.9, 0.1], ThresholdRule.from_section(select))

    def speakers(rule: str) -> bool:
        prepare = dataclasses.replace(shipped.prepare, speakers=rule)
        return dataclasses.replace(shipped, prepare=prepare).removes_speakers

    return {
        "threshold": threshold,
        "speakers": speakers,
        "chunk_label": lambda rule: is_fraud(spoken.utterances, spoken, rule),
        "metric": lambda metric: chosen_row(history, "best", metric),
        "checkpoint": lambda checkpoint: chosen_row(history, checkpoint, "f1"),
        "system": lambda system: choose_system(system, systems, np.array([True, False])),
        "calibration": lambda method: fit_calibration([True, False], [1.0, -1.0], method),
        "loss": lambda loss: training_rows([example], prompt, loss),
        "truncation_side": lambda side: dataclasses.replace(prompt, truncation_side=side).truncate([0] * 1000),
        "profile": lambda profile: checkpoints_activations(dataclasses.replace(shipped.train, profile=profile)),
    }


@pytest.mark.parametrize(
    "choice",
    [
        "threshold",
        "speakers",
        "chunk_label",
        "metric",
        "checkpoint",
        "calibration",
        "system",
        "loss",
        "profile",
        "truncation_side",
    ],
)
def test_a_value_without_a_branch_is_never_taken_for_another(prompt, choice):
    call = branches(prompt)[choice]
    for value in LITERALS[choice]:
        call(value)
    with pytest.raises((AssertionError, KeyError), match="newly allowed"):
        call("newly allowed")


def test_no_further_set_is_null(changed):
    path = changed({})
    raw = params.read_yaml(path)
    assert params.load(path).evaluate.further == {"harmless": "data/sample/harmless.jsonl"}
    raw["evaluate"]["further_sets"] = None  # as `-S evaluate.further_sets=null` writes it
    path.write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    assert params.load(path).evaluate.further == {}
