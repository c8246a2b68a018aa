"""A tokenizer that holds the prompt, so that plain transformers reads a text as training did.

Its post-processor puts the prompt before and behind the text, its normalizer removes speakers where training did, it
spells special tokens in a text as characters, and its greatest length leaves the text the room that it had.
"""

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from stages.data.speakers import SPEAKER
from stages.errors import UserError
from stages.export.merge import Source
from stages.text.prompt import Prompt

BEFORE, BEHIND = "<prompt>", "<answer>"  # names in the template; each stands for many ids
# Onigmo's classes for white space lack these four, which Python's \s has.
SEPARATORS = "\x1c-\x1f"


def write_tokenizer(folder: Path, prompt: Prompt, speakers_removed: bool) -> None:
    """Writes tokenizer.json and tokenizer_config.json.

    Args:
        folder: of the export.
        prompt: as in training. It reads each text once and does not cut the middle.
        speakers_removed: whether training removed names in front of lines.
    """
    backend: Any = prompt.tokenizer.backend_tokenizer
    tokenizer = json.loads(backend.to_str())
    tokenizer |= {"truncation": None, "padding": None, "post_processor": template(prompt)}
    if speakers_removed:
        tokenizer["normalizer"] = without_speakers(tokenizer["normalizer"])
        for token in tokenizer["added_tokens"]:
            # Tokens that are not normalized cut the text before the normalizer sees its lines. Gemma's line ends do.
            token["normalized"] |= not token["special"]
    named = {f"{name}_token": getattr(prompt.tokenizer, f"{name}_token") for name in ("bos", "eos", "pad", "unk")}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # a class of the family would build its own normalizer
        "model_max_length": len(tokens_around(prompt)) + prompt.room,
        "truncation_side": prompt.truncation_side,
        "padding_side": "right",
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        **{name: token for name, token in named.items() if token},
    }
    for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def tokens_around(prompt: Prompt) -> list[int]:
    """The tokens of an input without a text."""
    return prompt.prefix + prompt.suffix + prompt.answer_prefix


def template(prompt: Prompt) -> dict[str, Any]:
    """The post-processor: prompt, text, and the prompt's rest with the begin of the answer."""
    parts = {BEFORE: prompt.prefix, BEHIND: prompt.suffix + prompt.answer_prefix}
    spelled = prompt.tokenizer.convert_ids_to_tokens
    single = [
        {"SpecialToken": {"id": BEFORE, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": BEHIND, "type_id": 0}},
    ]
    pair = [*single[:2], {"Sequence": {"id": "B", "type_id": 1}}, single[2]]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": {name: {"id": name, "ids": ids, "tokens": spelled(ids)} for name, ids in parts.items()},
    }


def without_speakers(normalizer: dict[str, Any] | None) -> dict[str, Any]:
    """A normalizer that first removes what `remove_speakers` removes.

    A text of names only stays as it is: the first alternative matches the whole of it, and keeps it (\\K). `^` is the
    start of any line in this dialect.
    """
    name = SPEAKER.pattern.replace(r"[^\s", rf"[^\s{SEPARATORS}")
    blank = rf"(?:[^\S\n]|[{SEPARATORS}])*"
    pattern = rf"\A(?>(?:{name})?{blank}(?:\n|\z))+\z\K|{name}"
    removal = {"type": "Replace", "pattern": {"Regex": pattern}, "content": ""}
    return {"type": "Sequence", "normalizers": [removal, *([normalizer] if normalizer else [])]}


def reads_alike(folder: Path, source: Source, texts: list[str]) -> bool:
    """Whether AutoTokenizer reads each text as training did with the written tokenizer.

    For some families (Qwen2's) it builds the normalizer anew whatever tokenizer_config.json says. There,
    PreTrainedTokenizerFast has to be named, as score.py does. Raises UserError where that one reads otherwise, too.

    Args:
        folder: of the tokenizer.
        source: the trained model.
        texts: what is compared.
    """
    prompt = source.prompt
    read = [source.selected.as_read(text) for text in texts]
    expected = [prompt.encode(ids) for ids in prompt.tokenize(read)]
    for text, ids, wanted in zip(texts, token_ids(PreTrainedTokenizerFast, folder, texts), expected, strict=True):
        if ids != wanted:
            raise UserError(
                f"the tokenizer of this base model can't carry the prompt: it reads {text[:40]!r} as {len(ids)} "
                f"tokens that are not the {len(wanted)} of training; expected the same: choose another base model, or "
                "use `python -m stages.predict`"
            )
    plain = token_ids(AutoTokenizer, folder, texts) == expected
    if not plain:
        print(
            "export: WARNING: for this base model AutoTokenizer drops a part of the tokenizer, such as the removal of "
            "speakers: name PreTrainedTokenizerFast, as README.md of the export shows. Servers that load tokenizers by "
            "themselves get other scores for such texts"
        )
    return plain


def token_ids(kind: Any, folder: Path, texts: list[str]) -> list[list[int]]:
    """The inputs of the model by a written tokenizer. kind: the class that loads it."""
    return kind.from_pretrained(folder, local_files_only=True)(texts, truncation=True)["input_ids"]
