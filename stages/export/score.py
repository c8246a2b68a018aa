"""Scores texts with the exported folder that this file lies in. It needs none of the project that made the folder.

python score.py --file texts.jsonl --out scores.jsonl

Each line of texts.jsonl holds a text under the key `input`. Each line of scores.jsonl has log_odds and probability of
fraud, label (whether it is called fraud), truncated, and band if export.json has bands. The last line of the output
counts texts and seconds.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TOKENS = 4096  # padded, in a batch
RawScorer = Callable[[list[list[int]]], list[float]]  # token ids of a batch, similar lengths -> log-odds


def load(folder: Path, base: str | None = None) -> Callable[[list[str]], list[dict[str, Any]]]:
    """The scorer of an exported folder. base: of an adapter, the folder of its base model."""
    from transformers import PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    inside = folder / "scoring"  # where the folder's own tokenizer is the base model's, for generation
    tokenizer = PreTrainedTokenizerFast.from_pretrained(inside if inside.is_dir() else folder)
    kinds = {"classifier": classifier, "onnx": onnx, "merged": causal, "adapter": adapter, "gguf": gguf}
    raw = kinds[record["kind"]](folder, record, base)

    def score(texts: list[str]) -> list[dict[str, Any]]:
        tokens = [tokenizer(text)["input_ids"] for text in texts]
        truncated = [len(ids) > tokenizer.model_max_length for ids in tokens]
        for row in (row for row, cut in enumerate(truncated) if cut):
            tokens[row] = tokenizer(texts[row], truncation=True)["input_ids"]
        found = dict(scored(tokens, raw))
        return [verdict(found[row], cut, record) for row, cut in enumerate(truncated)]

    return score


def scored(tokens: list[list[int]], raw: RawScorer) -> Iterator[tuple[int, float]]:
    """Row numbers with their log-odds, from batches of similar lengths."""
    order = sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))
    while order:
        rows = max(1, TOKENS // len(tokens[order[0]]))
        batch, order = order[:rows], order[rows:]
        yield from zip(batch, raw([tokens[row] for row in batch]), strict=True)


def verdict(raw: float, truncated: bool, record: dict[str, Any]) -> dict[str, Any]:
    """The row of a text. Its log-odds are calibrated; a threshold for the plain probability is in export.json."""
    plain = record["slope"] * raw
    label = expit(plain) >= record["threshold"]
    log_odds = plain + record["offset"]
    row = {"log_odds": log_odds, "probability": expit(log_odds), "label": label, "truncated": truncated}
    if "bands" in record:
        edges = record["bands"]
        reached = [name for name in ("block", "review") if expit(plain) >= edges[name]]
        row["band"] = reached[0] if reached else "pass"
    return row


def expit(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds)) if log_odds >= 0 else math.exp(log_odds) / (1 + math.exp(log_odds))


def padded(tokens: list[list[int]], pad: int, left: bool = False) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids and attention mask of equal lengths."""
    longest = max(map(len, tokens))
    fill = [longest - len(ids) for ids in tokens]
    if left:
        rows = [([pad] * n + ids, [0] * n + [1] * len(ids)) for ids, n in zip(tokens, fill, strict=True)]
    else:
        rows = [(ids + [pad] * n, [1] * len(ids) + [0] * n) for ids, n in zip(tokens, fill, strict=True)]
    return [ids for ids, _ in rows], [mask for _, mask in rows]


def placed(device: str) -> dict[str, Any]:
    """Arguments that load a model onto a device. On a GPU they need the package accelerate."""
    return {} if device == "cpu" else {"device_map": {"": device}}


def without_repacking(model: Any) -> Any:
    """The model, whose 4-bit weights bitsandbytes won't repack. On CPUs with AVX512-bf16 it would, for a kernel that is
    installed separately. Without that kernel, passes are far slower, rounded otherwise, or an error."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def classifier(folder: Path, record: dict[str, Any], base: str | None) -> RawScorer:
    import torch
    from transformers import AutoModelForSequenceClassification

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False, **placed(device))
    without_repacking(model).eval()

    def raw(tokens: list[list[int]]) -> list[float]:
        ids, mask = (torch.tensor(rows, device=device) for rows in padded(tokens, model.config.pad_token_id))
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.double()
        return (logits[:, 1] - logits[:, 0]).tolist()

    return raw


def onnx(folder: Path, record: dict[str, Any], base: str | None) -> RawScorer:
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])

    def raw(tokens: list[list[int]]) -> list[float]:
        ids, mask = (np.array(rows, dtype=np.int64) for rows in padded(tokens, record["pad_token_id"]))
        (logits,) = session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
        return (logits[:, 1].astype(float) - logits[:, 0]).tolist()

    return raw


def causal(folder: Path, record: dict[str, Any], base: str | None) -> RawScorer:
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return of_causal(
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, **placed(device)).eval(), record
    )


def adapter(folder: Path, record: dict[str, Any], base: str | None) -> RawScorer:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = getattr(torch, record["dtype"])
    config = record["quantization"] and BitsAndBytesConfig(**record["quantization"], bnb_4bit_compute_dtype=dtype)
    model = AutoModelForCausalLM.from_pretrained(
        base or record["base"]["id"],
        dtype=dtype,
        trust_remote_code=False,
        device_map={"": "cuda" if torch.cuda.is_available() else "cpu"},
        **({"quantization_config": config} if config else {}),
    )
    adapted = PeftModel.from_pretrained(without_repacking(model), folder)
    return of_causal(adapted.eval().get_base_model(), record)


def of_causal(model: Any, record: dict[str, Any]) -> RawScorer:
    """The two label words against each other as the next token.

    Their rows of the head are applied in float64: whole logits in bfloat16 lie on a grid with steps of 1/16.
    """
    import torch

    head, seen = model.get_output_embeddings(), []
    head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][:, -1]))
    words = torch.tensor([record["label_ids"]["legitimate"], record["label_ids"]["fraud"]], device=head.weight.device)
    rows = head.weight[words].double()
    bias = 0 if head.bias is None else head.bias[words].double()
    cap = getattr(model.config, "final_logit_softcapping", None)

    def raw(tokens: list[list[int]]) -> list[float]:
        pad = record["pad_token_id"]
        ids, mask = (torch.tensor(each, device=rows.device) for each in padded(tokens, pad, left=True))
        places = (mask.cumsum(1) - 1).clamp(min=0)
        seen.clear()
        with torch.no_grad():
            model(input_ids=ids, attention_mask=mask, position_ids=places, logits_to_keep=1, use_cache=False)
            logits = seen[-1].double() @ rows.T + bias
        logits = cap * torch.tanh(logits / cap) if cap else logits
        return (logits[:, 1] - logits[:, 0]).tolist()

    return raw


def gguf(folder: Path, record: dict[str, Any], base: str | None) -> RawScorer:
    from llama_cpp import Llama

    (file,) = folder.glob("*.gguf")
    longest = record["max_length"] + len(record["prompt_ids"])
    model = Llama(str(file), n_ctx=longest, n_batch=longest, n_ubatch=longest, verbose=False)
    words = record["label_ids"]

    def raw(tokens: list[list[int]]) -> list[float]:
        found = []
        for ids in tokens:
            model.reset()
            model.eval(ids)
            logits = model._ctx.get_logits()  # of the last token
            found.append(float(logits[words["fraud"]]) - float(logits[words["legitimate"]]))
        return found

    return raw


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--file", type=Path, required=True, help="JSON Lines with the key input")
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON Lines: log_odds, probability, label, truncated, band"
    )
    parser.add_argument("--base", help="of an adapter: the folder of its base model")
    arguments = parser.parse_args()
    lines = arguments.file.read_text(encoding="utf-8").split("\n")
    texts = [json.loads(line)["input"] for line in lines if line.strip()]
    score = load(Path(__file__).resolve().parent, arguments.base)
    start = time.perf_counter()
    rows = score(texts)
    seconds = time.perf_counter() - start
    arguments.out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    json.dump({"texts": len(texts), "seconds": seconds}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
