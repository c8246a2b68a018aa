"""The pages name only what exists, hold their bars, and agree with params.yaml and the plan."""

import itertools
import re

import pytest
from ruamel.yaml import YAML

from stages import params
from stages.plan.fit import BATCHES, GB, largest_batch
from stages.plan.shapes import config_of
from tests.pages import PAGES, ROOT, faults
from tools import prose

README_LINES, README_WORDS, TOP, PAGE_LINES = 200, 1800, 120, 250
FIRST = ("make repro", "docs/results.md", "docs/data.md", "docs/gpu.md", "docs/multi-gpu.md", "docs/troubleshooting.md",
         "docs/use.md", "CONTRIBUTING.md")  # fmt: skip
READMES = [page for page in PAGES if page.parent == ROOT and page.name.startswith("README")]
DOCS = [page for page in PAGES if page.parent.name == "docs"]


def names(pages):
    return [page.relative_to(ROOT).as_posix() for page in pages]


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_what_a_page_names_exists(page):
    assert faults(page, page.read_text(encoding="utf-8")) == []


PLANTED = {
    "a module": ("```sh\npython -m stages.nothing 16\n```", "no module stages.nothing"),
    "a benchmark": ("`python -m benchmarks.curves`", "no module benchmarks.curves"),
    "a package that can't be run": ("`python -m stages.text`", "no module stages.text"),
    "a tool": ("`python -m tools.nothing`", "no module tools.nothing"),
    "an option": ("```sh\nNPROC=2 python -m stages.predict --input a --out b\n```", "no option --input"),
    "an option on a continued line": ("```sh\npython -m stages.predict \\\n  --fil a\n```", "no option --fil"),
    "an option after a pipe": ("```\ncat a | python -m stages.predict --in -\n```", "no option --in"),
    "an option of dvc repro": ("`python -m stages.repro --nothing`", "DVC refuses"),
    "a target": ("```sh\nsource .venv/bin/activate && make reproduce\n```", "no target reproduce"),
    "a variable of make": ("`make repro GPUS=2`", "no variable GPUS"),
    "a DVC command": ("`dvc experiment go`", "DVC refuses"),
    "a DVC option": ("`dvc exp run --que -S train.seed=1 --nothing`", "DVC refuses"),
    "a stage": ("`dvc repro fetsh`", "no stage fetsh"),
    "a key": ("```sh\ndvc exp run -S train.lr=1e-4\n```", "train"),
    "a section": ("`-S training.seed=1`", "training"),
    "a method": ("```sh\ndvc exp run -S method=qlora-tpu\n```", "method: found 'qlora-tpu'"),
    "a data set": ("`-S dataset=nothing`", "dataset: found 'nothing'"),
    "a value": ("`-S train.profile=fast`", "train.profile"),
    "a key that needs a plus": ("`-S evaluate.further_sets.a=data/raw/a.jsonl`", "further_sets"),
    "a key in a method": ("`-S methods.qlora-gpu.train.lr=1`", "lr"),
    "a key in prose": ("`train.batch_size`", "no train.batch_size"),
    "a value in prose": ("`train.profile: fast`", "train.profile"),
    "a method in prose": ("`methods.nothing`", "no such entry"),
    "a key of a method in prose": ("`methods.qlora.lr`", "no such entry"),
    "a YAML key": ("```yaml\ndatasets:\n  mine: {pol: data/raw/a.jsonl}\n```", "pol"),
    "a path": ("`stages/nothing/memory.py`", "no such path"),
    "a result": ("`results/races.json`", "no such path"),
    "a metric": ("`metrics/nothing.json`", "no such path"),
    "a test": ("`test_nothing_at_all`", "no such test"),
    "a link": ("[x](nothing.md)", "no such file"),
    "a picture": ('<img src="img/nothing.svg">', "no such file"),
    "an anchor": ("# Here\n\n[x](#there)", "no such heading"),
    "an anchor elsewhere": ("[x](data.md#nothing)", "no such heading"),
    "a quote": ("```sh\necho 'x\n```", "quotation"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name):
    text, expected = PLANTED[name]
    found = faults(ROOT / "docs/planted.md", text)
    assert len(found) == 1
    assert expected in found[0]


GOOD = """# Here

`train.jsonl`, `evaluate.json`, `train.seed`, `train.profile: speed`, `methods.qlora-gpu.train.learning_rate`,
`models.qwen2-1.5b`, `metrics/seeds.json`, `stages/metrics.py`, `dvc add`, `make seeds SEEDS=1,2`,
[here](#here), [elsewhere](data.md#rows), <https://example.org>, `python -m stages.NAME`

```yaml
datasets:
  mine: {pool: data/raw/mine.jsonl}
```

```sh
NPROC=2 dvc exp run -S dataset=mine -S 'evaluate.without_categories=[a]'  # a comment
dvc exp run -S method=qlora-gpu \\
  -S +evaluate.further_sets.a=data/raw/a.jsonl
dvc exp run --queue -S train.seed=1,2 && python -m stages.repro --force train
zcat new.jsonl.gz | .venv/bin/python -m stages.predict --file - --out - | jq -c 'select(.label)'
```
"""


def test_what_exists_is_no_fault():
    assert faults(ROOT / "docs/planted.md", GOOD) == []


@pytest.mark.parametrize("page", READMES, ids=names(READMES))
def test_the_readme_is_short_and_answers_first(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= README_LINES
    top = "\n".join(lines[:TOP])
    assert [each for each in FIRST if each not in top] == []
    if page.name == "README.md":
        assert len(" ".join(lines).split()) <= README_WORDS


@pytest.mark.parametrize("page", [*READMES, *DOCS], ids=names([*READMES, *DOCS]))
def test_sentences_are_short(page):
    text = page.read_text(encoding="utf-8")
    if prose.is_english(text):
        median, share, _ = prose.figures(text)
        assert prose.is_within(median, share), (median, share)


@pytest.mark.parametrize("page", DOCS, ids=names(DOCS))
def test_a_page_is_short_and_opens_with_its_question(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= PAGE_LINES
    assert lines[0].startswith("# ")


def test_prose_counts_sentences_and_no_tables_or_code():
    text = (
        "# No heading counts\n\nOne two three. Four `five six` seven:\n\n```sh\nno code\n```\n\n| no | table |\n\n"
        "- eight\n  nine\n"
    )
    assert [prose.words(each) for each in prose.sentences(text)] == [3, 3, 2]
    assert not prose.is_english("这是一个中文页面。")
    assert not prose.is_within(*prose.figures("word " * 41)[:2])


ROW = re.compile(r"^\| `(\w+)` \| `([^`]+)` \|", re.MULTILINE)


@pytest.mark.parametrize("section", params.SECTIONS)
def test_the_table_of_a_section_is_params_yaml(section):
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    (part,) = re.findall(rf"^## {section}$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    listed = {key: YAML(typ="safe").load(default) for key, default in ROW.findall(part)}
    assert listed == params.read_yaml(ROOT / "params.yaml")[section]


def test_the_articles_table_is_params_yaml():
    page = (ROOT / "docs/reproduce-article.md").read_text(encoding="utf-8")
    raw = params.read_yaml(ROOT / "params.yaml")
    rows = re.findall(r"^\| `train\.(\w+)` \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)
    assert len(rows) > 5
    for key, *cells in rows:  # a cell begins with the value
        article, default = (YAML(typ="safe").load(cell.partition(",")[0].strip(" `")) for cell in cells)
        assert (key, article, default) == (key, raw["methods"]["article"]["train"][key], raw["train"][key])


def test_the_table_of_gpus_is_the_plans():
    page = (ROOT / "docs/gpu.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) GB \|((?: [\d+–]+ \|){6})$", page, re.MULTILINE)
    assert len(rows) == 6
    chosen = params.load(ROOT / "params.yaml")
    for card, cells in rows:
        shapes = itertools.product(("0.5b", "1.5b", "7b"), (False, True))
        expected = [planned(chosen, f"qwen2-{shape}", checkpointing, int(card)) for shape, checkpointing in shapes]
        assert [cell.strip() for cell in cells.strip(" |").split("|")] == expected


def planned(chosen: params.Params, shape: str, checkpointing: bool, card: int) -> str:
    """The cell of a card of so many GB.

    Args:
        chosen: params.yaml.
        shape: a model of stages.plan.shapes.
        checkpointing: whether activations are checkpointed.
        card: GB, as the card is sold.
    """
    method, r = chosen.methods["qlora-dq"], chosen.train.r
    fit = largest_batch(config_of(shape), method, r, 512, checkpointing, card * GB)
    return "–" if fit is None else f"{fit[0]}{'+' * (fit[0] == BATCHES[-1])}"


FOREIGN = ("CUDA out of memory", "Could not override", "Unable to", "are missing from", "validation failed",
           "is invalid", "is busy", "blocked by", "command not found", "bad DVC file name", "git-ignored",
           "<<<<<<<")  # fmt: skip


def test_the_errors_of_troubleshooting_are_those_of_the_code():
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    symptoms = re.findall(r"^\| ([^|]*`[^|]*) \|", page.partition("## What survives what")[0], re.MULTILINE)
    spans = [span for symptom in symptoms for span in re.findall(r"`([^`]+)`", symptom)]
    parts = [part.strip().removeprefix("error: ") for span in spans for part in span.split("…")]
    ours = [part for part in parts if part.count(" ") > 1 and not any(text in part for text in FOREIGN)]
    sources = [ROOT / "Makefile", *ROOT.glob("stages/**/*.py")]
    code = re.sub(r'"\s+f?"', "", "\n".join(source.read_text(encoding="utf-8") for source in sources))
    assert len(ours) > 5
    assert [part for part in ours if part not in code] == []
