import dataclasses
from pathlib import Path

import pytest

from stages import params
from stages.params import ParamsError

SHIPPED = Path(__file__).parents[1] / "params.yaml"


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
    assert (article.select, article.evaluate, article.prepare) == (ours.select, ours.evaluate, ours.prepare)


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
        "train.loss: found 'lable'; expected one of label, completion (did you mean label?)",
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
        ({"prepare/balance": ["dev"]}, "balance: found 'dev'; expected some of train, valid, test"),
        ({"prepare/chunk_characters": []}, "expected whole numbers above 0"),
        ({"evaluate/further_sets": {"test": "data/raw/x.jsonl"}}, "further_sets: found the name 'test'"),
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
def test_what_can_not_be_meant_is_said(changed, change, problem):
    with pytest.raises(ParamsError, match="problem") as error:
        params.load(changed(change))
    assert problem in str(error.value)


def test_a_key_written_twice_is_an_error(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(SHIPPED.read_text(encoding="utf-8") + "\nmethod: lora\n", encoding="utf-8")
    with pytest.raises(ParamsError, match="the key 'method' stands twice"):
        params.load(file)


@pytest.mark.parametrize(
    "text",
    ["a: " + "[" * 5000, "? [a]\n: 1", "a: !!int abc", "a: 2024-13-45", "a: !!timestamp x", f"a: {'9' * 5000}",
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
