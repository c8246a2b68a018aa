"""The schema of params.yaml as frozen dataclasses. `load()` reports every unknown key and bad value at once.

The comments in params.yaml say what a field does. This file holds its type and the allowed values.
"""

import dataclasses
import re
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stages.data.layout import Layout, column_problems, encoding_problems, label_problems, label_words
from stages.params_file import MAX_WHOLE, ParamsError, build, build_table, is_mapping, nearest, read_yaml

PARAMS_FILE = Path("params.yaml")
MAX_SEED = 2**32 - 1  # numpy's

Profile = Literal["plain", "speed", "memory", "auto"]


def at_least(low: float, default: Any = dataclasses.MISSING) -> Any:
    """A number field whose value is `low` or more."""
    return field(default=default, metadata={"low": low})


def between(low: float, high: float, default: Any = dataclasses.MISSING) -> Any:
    """A number field whose value lies in [low, high]."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True, kw_only=True)
class Method:
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    load_in_4bit: bool = False
    load_in_8bit: bool = False
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    bnb_4bit_use_double_quant: bool = False
    residency: Literal["quantized", "dequantized", "sharded"] = "quantized"
    train: dict = field(default_factory=dict)  # replaces keys of the section `train`
    prompt: dict = field(default_factory=dict)  # of `prompt`
    select: dict = field(default_factory=dict)  # and of `select`

    def problems(self):
        if self.load_in_4bit and self.load_in_8bit:
            yield "load_in_4bit and load_in_8bit exclude each other: set one to false"
        if self.residency == "dequantized" and not (self.load_in_4bit or self.load_in_8bit):
            yield "residency dequantized needs load_in_4bit or load_in_8bit: there is nothing to unpack"
        if self.residency == "sharded" and self.load_in_8bit:
            yield "residency sharded: bitsandbytes' 8-bit weights can't be split; choose load_in_4bit or neither"


@dataclass(frozen=True, kw_only=True)
class Model:
    source: Literal["package", "hub", "modelscope", "folder"]
    id: str = ""
    revision: str = ""
    license: str = "unknown"
    packages: dict = field(default_factory=dict)  # name: version, in the order of the parts of the file
    sha256: str = ""  # of the GGUF file that the packages hold
    path: str = ""

    def problems(self):
        needed = {
            "package": ("packages", "sha256"),
            "hub": ("id", "revision"),
            "modelscope": ("id", "revision"),
            "folder": ("path",),
        }
        for key in needed[self.source]:
            if not getattr(self, key):
                yield f"source {self.source} needs the key {key}"
        if self.path and not Path(self.path).is_absolute() and ".." in Path(self.path).parts:
            yield f"path is {self.path!r}; expected a folder of the project, or an absolute path"
        if self.source == "hub" and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            yield f"revision is {self.revision!r}; expected a commit of 40 hex digits, which can't move"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    pool: str | list = ""
    dialogues: str = ""
    train: str = ""
    valid: str = ""
    test: str = ""
    drop_train_duplicates: bool = False
    columns: dict = field(default_factory=dict)  # by role: text, label, group, category, time
    labels: dict = field(default_factory=dict)  # words that mean fraud, and legitimate
    encoding: str = ""
    quotes: bool = True

    def problems(self):
        splits = [bool(self.train), bool(self.valid), bool(self.test)]
        if [bool(self.pool), bool(self.dialogues), any(splits)].count(True) != 1 or any(splits) != all(splits):
            yield "expected either `pool` or `dialogues`, or all of `train`, `valid` and `test`"
        if self.dialogues and self.drop_train_duplicates:
            yield "drop_train_duplicates is for splits of your own: a split made here has none"
        if self.dialogues and (self.columns or self.labels or self.encoding or not self.quotes):
            yield "columns, labels, encoding and quotes are for texts in rows; dialogues have fixed columns"
        if "time" in self.columns and not self.pool:
            yield "columns.time is for a pool, which is split by it: splits of your own are kept as given"
        yield from (*column_problems(self.columns), *label_problems(self.labels), *encoding_problems(self.encoding))
        for path in filter(None, (*self.pools, self.dialogues, self.train, self.valid, self.test)):
            yield from unseen_path(path)

    @property
    def layout(self) -> Layout:
        """How its files are read."""
        return Layout(self.columns, label_words(self.labels), self.encoding, self.quotes)

    @property
    def pools(self) -> list[str]:
        return self.pool if isinstance(self.pool, list) else [self.pool] if self.pool else []


def unseen_path(path: Any) -> typing.Iterator[str]:
    """Yields the problem of a path whose changes DVC would not see."""
    if not isinstance(path, str) or "\0" in path:
        yield f"found {path!r}; expected a path"
    elif Path(path).parts[:2] not in (("data", "raw"), ("data", "sample")) or ".." in Path(path).parts:
        yield f"found {path!r}; expected a file in data/raw or data/sample, where DVC sees it change"
    else:
        for folder in (Path(path), *Path(path).parents)[:-3]:  # below data/raw
            if folder.is_symlink() and folder.is_dir():
                yield f"found {path!r}, where {folder} is a link, behind which DVC sees no change; expected the folder"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    instruction: str
    max_length: int = at_least(32)
    truncation_side: Literal["right", "left", "middle"] = "right"
    repetitions: int = between(1, 4)


@dataclass(frozen=True, kw_only=True)
class Prepare:
    valid_fraction: float = between(0.05, 0.9)
    test_fraction: float = between(0.05, 0.9)
    max_rejected_fraction: float = between(0, 1)
    near_duplicate: float = between(0.3, 1)
    containment: float = between(0.3, 1)
    contained_characters: int = at_least(1)
    conflicting_labels: Literal["keep", "drop"]
    speakers: Literal["auto", "keep", "remove"]
    chunk_characters: list
    chunk_label: Literal["any_line", "from_first_line"]
    balance: list
    max_rows_per_unit: int | None = at_least(1)
    shortcut_warning: float = between(0, 1)
    seed: int = between(0, MAX_SEED)
    manifest: str | None = None
    fold: int | None = between(0, 4, None)
    train_rows: int | None = at_least(1, None)

    def problems(self):
        if self.manifest is not None:
            yield from (f"manifest: {problem}" for problem in unseen_path(self.manifest))
        if self.valid_fraction + self.test_fraction > 0.95:
            yield "valid_fraction and test_fraction leave less than 0.05 for train"
        for share in (self.valid_fraction, self.test_fraction):
            if abs(share * 20 - round(share * 20)) > 1e-9:
                yield f"found the fraction {share}; expected a multiple of 0.05"
        if not self.chunk_characters or not all(type(size) is int and size > 0 for size in self.chunk_characters):
            yield f"chunk_characters is {self.chunk_characters}; expected whole numbers above 0"
        for name in self.balance:
            if name not in ("train", "valid", "test"):
                yield f"balance: found {name!r}; expected some of train, valid, test"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    methods: list
    prequantized: list
    repeats: int = at_least(1)
    batch_size: int = at_least(1)
    sequence_length: int = at_least(1)


@dataclass(frozen=True, kw_only=True)
class Train:
    r: int = at_least(1)
    lora_alpha: int = at_least(1)
    lora_dropout: float = between(0, 0.99)
    target_modules: str | list
    num_train_epochs: float = between(0.01, 1000)
    per_device_train_batch_size: int = at_least(1)
    max_tokens_per_batch: int | None = at_least(1)
    gradient_accumulation_steps: int = at_least(1)
    train_sampling_strategy: Literal["group_by_length", "random"]
    learning_rate: float = between(0, 1)
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"]
    warmup_steps: float = at_least(0)
    weight_decay: float = at_least(0)
    max_grad_norm: float = at_least(0)
    optim: Literal[
        "auto", "adamw_torch", "adamw_torch_fused", "paged_adamw_32bit", "paged_adamw_8bit", "adamw_bnb_8bit", "sgd"
    ]
    profile: Profile
    gradient_checkpointing: bool
    loss: Literal["label", "binary", "completion"]
    eval_steps: float = at_least(0.001)
    eval_max_tokens_per_batch: int = at_least(1)
    early_stopping_patience: int = at_least(1)
    logging_steps: int = at_least(1)
    save_steps: float = at_least(0.001)
    save_total_limit: int = at_least(1)
    seed: int = between(0, MAX_SEED)

    def problems(self):
        if self.train_sampling_strategy == "random" and self.max_tokens_per_batch is not None:
            yield "train_sampling_strategy random needs max_tokens_per_batch null: the number of batches must not vary"
        for key in ("eval_steps", "save_steps"):
            steps = getattr(self, key)
            if steps is not None and steps >= 1 and steps != int(steps):
                yield f"{key} is {steps}; expected a share below 1 or a whole number of steps"
        if isinstance(self.target_modules, list) and not all(isinstance(name, str) for name in self.target_modules):
            yield f"target_modules is {self.target_modules}; expected names, or all-linear"


@dataclass(frozen=True, kw_only=True)
class Select:
    checkpoint: Literal["last", "best"] = "last"
    metric: Literal["loss", "average_precision", "f1"]
    calibration: Literal["platt", "temperature"] = "platt"
    threshold: Literal["max_f1", "max_f1_on_valid", "precision_at_least", "min_cost", "fixed"]
    min_precision: float = between(0, 1)
    cost: dict
    fraud_fraction: float | None = between(0.001, 0.999)
    system: Literal["model", "baseline", "probe", "combined", "combined_cheap", "best"] = "model"
    bands: dict | None = None

    def problems(self):
        yield from band_problems(self.bands)
        if self.cost is None:  # in a method that replaces other keys
            return
        if set(self.cost) != {"fp", "fn"} or not all(map(is_amount, self.cost.values())):
            yield f"cost is {self.cost}; expected numbers above 0, a false alarm (fp) and a miss (fn): {{fp: 1, fn: 5}}"

    def section(self) -> dict[str, Any]:
        """The section for records and pages. Without bands it doesn't name them, as before there were any."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key != "bands" or value}


def is_amount(value: Any) -> bool:
    """Whether this is a number above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < MAX_WHOLE


def band_problems(bands: dict | None) -> typing.Iterator[str]:
    """Yields the problem of select.bands."""
    if bands is None:
        return
    forms = "{cost: {fp: 1, fn: 5, review: 0.2}}, {reviews_per_1000: 50} or null"
    match bands:
        case {"cost": dict(cost), **rest} if not rest:
            if set(cost) != {"fp", "fn", "review"} or not all(map(is_amount, cost.values())):
                yield (
                    f"bands.cost is {cost}; expected numbers above 0, a false alarm (fp), a miss (fn) and a review: "
                    "{fp: 1, fn: 5, review: 0.2}"
                )
                return
            most = cost["fp"] * cost["fn"] / (cost["fp"] + cost["fn"])
            if cost["review"] >= most:
                yield (
                    f"bands.cost.review is {cost['review']}; expected less than fp × fn / (fp + fn) = {most:.4g}: no "
                    "text is worth a dearer review"
                )
        case {"reviews_per_1000": budget, **rest} if not rest:
            if not is_amount(budget) or budget >= 1000:
                yield f"bands.reviews_per_1000 is {budget!r}; expected a number above 0 and below 1000"
        case _:
            yield f"bands is {bands}; expected {forms}"


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    mode: Literal["score", "generate"]
    max_tokens_per_batch: int = at_least(1)
    generate_batch_size: int = at_least(1)
    max_new_tokens: int = at_least(1)
    further_sets: dict | None
    without_categories: list
    bootstrap_samples: int = at_least(2)
    equivalence_margin: float = between(0, 0.5, 0.02)
    errors_listed: int = at_least(0)

    @property
    def further(self) -> dict:
        """The further sets by name. null is none of them: DVC merges {} into those that are there."""
        return self.further_sets or {}

    def problems(self):
        for name, path in self.further.items():
            if (
                not isinstance(name, str)
                or not re.fullmatch(r"[A-Za-z0-9_-]+", name)
                or name in ("train", "valid", "test", "errors")
            ):
                yield (
                    f"further_sets: found the name {name!r}; expected letters, digits, _ and -, and none of train, "
                    "valid, test, errors"
                )
            yield from (f"further_sets.{name}: {problem}" for problem in unseen_path(path))
        for name in self.without_categories:
            if not isinstance(name, str):
                yield f"without_categories: found {name!r}; expected the name of a category"


@dataclass(frozen=True, kw_only=True)
class Verify:
    bands: dict  # system: {metric: how far it may be from the committed figure}

    def problems(self):
        if not any(self.bands.values()):
            yield "bands is empty, so that every figure would pass; expected numbers by system and metric"
        for system, metrics in self.bands.items():
            if not isinstance(metrics, dict):
                yield f"bands.{system} is {metrics!r}; expected numbers by metric, as in model: {{f1: 0.05}}"
                continue
            for metric, band in metrics.items():
                if isinstance(band, bool) or not isinstance(band, int | float) or not 0 <= band <= MAX_WHOLE:
                    yield f"bands.{system}.{metric} is {band!r}; expected a number from 0 on"


@dataclass(frozen=True, kw_only=True)
class Params:
    """The selected entries and all sections. `method`, `model` and `dataset` are the entries, `*_name` their names."""

    method_name: str
    model_name: str
    dataset_name: str
    method: Method
    model: Model
    dataset: Dataset
    methods: dict[str, Method]
    prompt: Prompt
    prompt_section: Prompt  # as params.yaml has it, before the method replaces keys
    prepare: Prepare
    benchmark: Benchmark
    train: Train
    select: Select
    evaluate: Evaluate
    verify: Verify

    @property
    def removes_speakers(self) -> bool:
        """Whether names of speakers are removed from texts. `auto` removes them from dialogues in lines."""
        match self.prepare.speakers:
            case "keep":
                return False
            case "remove":
                return True
            case "auto":
                return bool(self.dataset.dialogues)
            case other:
                typing.assert_never(other)


SECTIONS = {
    "prompt": Prompt,
    "prepare": Prepare,
    "benchmark": Benchmark,
    "train": Train,
    "select": Select,
    "evaluate": Evaluate,
    "verify": Verify,
}
TABLES = {"method": ("methods", Method), "model": ("models", Model), "dataset": ("datasets", Dataset)}


def load(path: Path = PARAMS_FILE) -> Params:
    """Reads and checks params.yaml. Raises ParamsError that lists all problems of the file, one per line."""
    raw = read_yaml(path)
    problems: list[str] = []
    for key in raw.keys() - SECTIONS.keys() - TABLES.keys() - {table for table, _ in TABLES.values()}:
        known = [*SECTIONS, *TABLES, *(table for table, _ in TABLES.values())]
        problems.append(f"{key}: unknown key{nearest(key, known)}")
    tables = {name: build_table(raw.get(table), table, cls, problems) for name, (table, cls) in TABLES.items()}
    sections = {name: build(cls, raw.get(name), name, problems) for name, cls in SECTIONS.items()}
    prompt_section = sections["prompt"]
    for name, method in tables["method"].items():
        for section in ("train", "prompt", "select"):
            changes, where = getattr(method, section, {}), f"methods.{name}.{section}"
            if changes and name != raw.get("method"):  # it may contradict the section, which it is not used with
                build(SECTIONS[section], changes, where, problems, partial=True)
            elif changes and is_mapping(raw.get(section)):
                sections[section] = build(SECTIONS[section], raw[section] | changes, where, problems)
    for name in TABLES:
        problems += chosen_problems(name, raw.get(name), tables[name])
    for key in ("methods", "prequantized"):
        for name in getattr(sections["benchmark"], key, []):
            if not isinstance(name, str) or name not in tables["method"]:
                problems.append(f"benchmark.{key}: {name!r} is no entry of methods{nearest(name, tables['method'])}")
    if problems:
        raise ParamsError(f"{path} has {len(problems)} problem(s):\n  " + "\n  ".join(problems))
    chosen = {f"{name}_name": raw[name] for name in TABLES} | {name: tables[name][raw[name]] for name in TABLES}
    return Params(**chosen, methods=tables["method"], prompt_section=prompt_section, **sections)


def chosen_problems(name: str, chosen: Any, table: typing.Collection[str]) -> typing.Iterator[str]:
    """Yields the problem of a name that selects no entry of its table."""
    if isinstance(chosen, str) and chosen in table:
        return
    known = ", ".join(table)
    if not isinstance(chosen, str) and str(chosen) in table:
        yield (
            f"{name}: found {chosen!r}, which YAML reads as no text; expected a name: write it in "
            f'quotes, here and in {TABLES[name][0]}, as in {name}: "{chosen}"'
        )
    else:
        yield f"{name}: found {chosen!r}; expected one of {known}{nearest(chosen, table)}"
