"""What is wrong in a page: commands, options, params keys, paths, tests and links that it names and that don't exist.

`faults(page, text)` reads them out of fenced shell and YAML blocks, inline code and links.
"""

import ast
import contextlib
import copy
import functools
import io
import json
import re
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser
from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from ruamel.yaml import YAML

from stages import params

ROOT = Path(__file__).parents[1]
WHERE = ("README*.md", "docs/*.md", "CONTRIBUTING.md", "benchmarks/README.md", "results/README.md")
PAGES = [page for pattern in WHERE for page in sorted(ROOT.glob(pattern))]
FENCE = re.compile(r"^(`{3,})([\w-]*)[^\n]*\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)|\b(?:src|srcset|href)=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ +(.*?)[ #]*$", re.MULTILINE)
SHELL = ("sh", "bash", "shell", "console", "")
SEPARATORS = {"&&", "||", "|", ";", "&", "do", "then", "(", ")", "<", "<(", ">", ">>"}
SECTIONS = tuple(params.SECTIONS)
TABLES = {"methods": params.Method, "models": params.Model, "datasets": params.Dataset}
KEY = re.compile(rf"({'|'.join([*SECTIONS, *TABLES])})\.([\w-]+(?:\.[\w-]+)*)(?:(?:: |=)(.*))?")
FILES = re.compile(r".*\.(json|jsonl|csv|py|md)")
PLACE = re.compile(r"(?:stages|tests|docs|benchmarks|results|tools|metrics|data/sample)/[\w./*-]*")
ELLIPSIS = "…"
EXAMPLE = re.compile(r"<!-- example: (\S+) -->")


def faults(page: Path, text: str) -> list[str]:
    """A sentence for each thing that a page names and that does not exist.

    A comment `<!-- example: NAME -->` in the page says that NAME is made up: faults that name it don't count.
    """
    found: list[str] = []
    made_up = EXAMPLE.findall(text)
    blocks = [(match[2], match[3]) for match in FENCE.finditer(text)]
    entries = yaml_blocks(text)
    prose = FENCE.sub("", text)
    code = [match[2].strip() for match in INLINE.finditer(prose)]
    everywhere = [*explained_entries(), *entries]
    for line in shell_lines(blocks):
        found += command_faults(line, everywhere)
    for span in code:
        if re.match(r"(\w+=\S+ +)*(python3?|make|dvc|torchrun|\.venv/bin/\w+) |-S ", span):
            found += command_faults(span, everywhere)
        found += [*key_faults(span), *place_faults(span), *test_faults(span)]
    found += [fault for block in entries for fault in params_faults([], [block])]
    found += link_faults(page, INLINE.sub("", prose))
    return [fault for fault in found if not any(name in fault for name in made_up)]


def yaml_blocks(text: str) -> list[str]:
    return [match[3] for match in FENCE.finditer(text) if match[2] in ("yaml", "yml")]


@functools.cache
def explained_entries() -> list[str]:
    """The entries of params.yaml that the pages about them show, such as `mine`, which other pages select."""
    pages = [ROOT / "docs/data.md", ROOT / "docs/base-models.md"]
    return [block for page in pages for block in yaml_blocks(page.read_text(encoding="utf-8"))]


def shell_lines(blocks: list[tuple[str, str]]) -> Iterator[str]:
    """The lines of shell blocks; one that a backslash continues is one line."""
    for language, block in blocks:
        if language in SHELL:
            yield from filter(str.strip, block.replace("\\\n", " ").splitlines())


def command_faults(line: str, entries: list[str]) -> Iterator[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError as error:
        yield f"{line!r}: {error}"
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if word not in SEPARATORS:
            command.append(word)
            continue
        yield from (f"`{line.strip()}`: {fault}" for fault in one_command_faults(command, entries))
        command = []


def one_command_faults(command: list[str], entries: list[str]) -> Iterator[str]:
    while command and re.fullmatch(r"\w+=.*", command[0]):
        command = command[1:]
    command = [word for word in command if word not in (ELLIPSIS, "...", "$")]
    if not command:
        return
    program, rest = Path(command[0]).name, command[1:]
    if program == "make":
        yield from make_faults(rest)
    elif program == "dvc":
        yield from dvc_faults(rest, entries)
    elif program == "-S":
        yield from dvc_faults(["exp", "run", *command], entries)
    elif program in ("python", "python3", "torchrun") and "-m" in rest:
        after = rest[rest.index("-m") + 1 :]
        yield from module_faults(after[0], after[1:])


def make_faults(words: list[str]) -> Iterator[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    for word in words:
        name = word.partition("=")[0]
        if "=" in word and not re.search(rf"\b{re.escape(name)}\b", makefile):
            yield f"the Makefile has no variable {name}"
        elif "=" not in word and word not in targets:
            yield f"the Makefile has no target {word}"


def module_faults(module: str, words: list[str]) -> Iterator[str]:
    if module.split(".")[0] not in ("stages", "benchmarks", "tools") or module.endswith(".NAME"):
        return
    files = module_files(module)
    if not files:
        yield f"there is no module {module} that can be run"
        return
    sources = [file.read_text(encoding="utf-8") for file in files]
    known = {"--help", "-h"}.union(*map(options, sources))
    unknown = [word for word in words if re.match(r"--?[a-zA-Z]", word) and word.partition("=")[0] not in known]
    if unknown and any("parse_known_args" in source for source in sources):  # the others are those of `dvc repro`
        yield from dvc_faults(["repro", *words], [])
    else:
        yield from (f"{module} has no option {word}" for word in unknown)


def module_files(module: str) -> list[Path]:
    """The files of a module that can be run, whose options are its own; none if there is no such module."""
    path = ROOT.joinpath(*module.split("."))
    if (path / "__main__.py").is_file():
        return sorted(path.glob("*.py"))
    file = path.with_suffix(".py")
    return [each for each in (file, file.with_name("common.py")) if file.is_file() and each.is_file()]


def options(source: str) -> set[str]:
    """The options that a source gives to an argparse parser."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    added = [call for call in calls if getattr(call.func, "attr", "") == "add_argument"]
    names = [each.value for call in added for each in call.args if isinstance(each, ast.Constant)]
    return {name for name in names if isinstance(name, str) and name.startswith("-")}


dvc_parser = functools.cache(get_main_parser)


def dvc_faults(words: list[str], entries: list[str]) -> Iterator[str]:
    """What DVC's own parser, and for params its own reading of `-S`, say of a command."""
    if not words or words[-1] == "-S":
        return
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            parsed = dvc_parser().parse_args(words)
    except (SystemExit, DvcParserError):
        if not is_dvc_command(words):
            yield f"DVC refuses {' '.join(words)}"
        return
    if words[0] == "repro" or hasattr(parsed, "set_param"):
        stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        named = [target for target in getattr(parsed, "targets", None) or [] if re.fullmatch(r"[a-z]+", target)]
        yield from (f"dvc.yaml has no stage {target}" for target in named if target not in stages)
    given = getattr(parsed, "set_param", None) or []
    overrides = [each for each in given if ELLIPSIS not in each and not re.search(r"=[A-Z_]+$", each)]
    if overrides:
        yield from params_faults(overrides, entries)


def is_dvc_command(words: list[str]) -> bool:
    """Whether the words name a command of DVC's and nothing more, as prose does that speaks of `dvc add`."""
    if any(word.startswith("-") for word in words):
        return False
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            dvc_parser().parse_args([*words, "--help"])
        except SystemExit as error:
            return not error.code
        except DvcParserError:
            return False
    return True


def params_faults(overrides: list[str], entries: list[str]) -> Iterator[str]:
    """What is wrong with params.yaml once a page's YAML entries and `-S` values are in it."""
    raw = raw_params()
    try:
        for entry in entries:
            raw = merged(raw, yaml.safe_load(entry))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "params.json"  # which is YAML too, and read faster by DVC
            file.write_text(json.dumps(raw, ensure_ascii=False), encoding="utf-8")
            if overrides:
                apply_overrides(file, get_hydra_sweeps({str(file): overrides})[0][str(file)])
            params.load(file)
    except (yaml.YAMLError, DvcException, params.ParamsError) as error:
        yield " ".join(str(error).split())


@functools.cache
def cached_params() -> dict:
    return params.read_yaml(ROOT / "params.yaml")


def raw_params() -> dict:
    """params.yaml as it stands, to change at will."""
    return copy.deepcopy(cached_params())


def merged(one: dict, other: dict) -> dict:
    """`other` put into `one`, mapping by mapping."""
    both = one | other
    return both | {
        key: merged(one[key], value)
        for key, value in other.items()
        if isinstance(one.get(key), dict) and isinstance(value, dict)
    }


def key_faults(span: str) -> Iterator[str]:
    """A params key, `section.key` with or without a value, that params.yaml lacks."""
    match = KEY.fullmatch(span)
    if not match or FILES.fullmatch(span):
        return
    section, key, value = match.groups()
    raw = raw_params()
    if section in TABLES:
        if not is_entry(key, TABLES[section], getattr_table(section), raw):
            yield f"`{span}`: params.yaml has no such entry or key of {section}"
        return
    name = key.partition(".")[0]
    if name not in raw[section]:
        yield f"`{span}`: params.yaml has no {section}.{name}"
    elif value and ELLIPSIS not in value and "." not in key:
        yield from params_faults([], [yaml.safe_dump({section: {key: YAML(typ="safe").load(value)}})])


def getattr_table(section: str) -> set[str]:
    """The names of a table's entries, with dots where the table is nested."""
    problems: list[str] = []
    raw = raw_params()
    return set(params.build_table(raw[section], section, TABLES[section], problems))


def is_entry(key: str, cls: type, names: set[str], raw: dict) -> bool:
    """Whether key is ENTRY, ENTRY.field or ENTRY.section.key of a table."""
    entry = max((name for name in names if key == name or key.startswith(f"{name}.")), key=len, default=None)
    if entry is None:
        return False
    first, _, rest = key.removeprefix(entry).removeprefix(".").partition(".")
    fields = {"", *cls.__dataclass_fields__}
    return first in fields and (not rest or rest in raw.get(first, {}))


def place_faults(span: str) -> Iterator[str]:
    """A path of this project that does not exist and that no stage writes."""
    if not PLACE.fullmatch(span) or re.search(r"\b[A-Z]{2,}\b", span.replace("README", "")):
        return
    if not list(ROOT.glob(span.rstrip("/"))) and not is_written(span.rstrip("/")):
        yield f"`{span}`: there is no such path"


def is_written(path: str) -> bool:
    """Whether a stage or a command writes this file: dvc.yaml or the code names it."""
    if not path.startswith("metrics/"):
        return False
    sources = [ROOT / "dvc.yaml", *ROOT.glob("stages/**/*.py")]
    return any(Path(path).name in source.read_text(encoding="utf-8") for source in sources)


@functools.cache
def tests() -> str:
    return "\n".join(file.read_text(encoding="utf-8") for file in ROOT.glob("tests/**/test_*.py"))


def test_faults(span: str) -> Iterator[str]:
    if re.fullmatch(r"test(_[a-z0-9]+){2,}", span) and f"def {span}(" not in tests():
        yield f"`{span}`: there is no such test"


test_faults.__test__ = False  # no test of pytest's


def link_faults(page: Path, text: str) -> Iterator[str]:
    for match in LINK.finditer(text):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if name and not file.exists():
            yield f"({target}): there is no such file"
        elif anchor and file.suffix == ".md" and anchor not in anchors(page_text(file, page, text)):
            yield f"({target}): the page has no such heading"


def page_text(file: Path, page: Path, text: str) -> str:
    return text if file == page else file.read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """What GitHub makes of a page's headings.

    >>> sorted(anchors("# A `b`, c\\n## Why? [x](y)\\n## Why? [x](y)\\n"))
    ['a-b-c', 'why-x', 'why-x-1']
    """
    found: dict[str, int] = {}
    for heading in HEADING.findall(FENCE.sub("", text)):
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {slug if not number else f"{slug}-{number}" for slug, last in found.items() for number in range(last + 1)}
