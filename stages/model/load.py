"""The one loader of base models and tokenizers, from the folder that the fetch stage wrote."""

import contextlib
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import bitsandbytes as bnb
import torch
from bitsandbytes import cextension
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from stages.distributed import is_main_process, world_size
from stages.errors import UserError
from stages.model.device import pick_device, pick_dtype
from stages.model.packed_attention import attend_packed
from stages.model.patches import keep_head_input_contiguous, keep_packing
from stages.params import Method
from stages.paths import BASE_MODEL

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)  # their weights, too, have three dimensions or more


class ModelError(UserError):
    """A model folder or a device can't be used as the method asks; the message says what to do."""


def load_base(method: Method, path: Path = BASE_MODEL, device: torch.device | None = None) -> PreTrainedModel:
    """Loads the base model as `method` says, frozen and in eval mode, on `device` (default: the GPU if there is one).

    A model whose layers will be sharded over several GPUs is loaded into the CPU's memory: it need not fit on one GPU.
    A folder that was saved quantized keeps its quantization. Raises ModelError where the folder can't be loaded, or
    where its quantization is not the method's.
    """
    device = device or pick_device()
    dtype = pick_dtype(method.dtype, device)
    saved_quantized = is_saved_as(method, path)
    config, sharded = None if saved_quantized else quantization(method, dtype), is_to_be_sharded(method)
    if device.type == "cuda" and (saved_quantized or config):
        require_gpu_build()
    transformers_logging.set_verbosity_error()
    try:
        with causes_named(path):
            model = AutoModelForCausalLM.from_pretrained(
                path,
                dtype=dtype,
                device_map={"": torch.device("cpu") if sharded else device},
                # An explicit None would make transformers drop the folder's own quantization.
                **({} if saved_quantized else {"quantization_config": None if sharded else config}),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} can't be loaded: {error}. Run `dvc repro fetch --force` to fetch it again") from error
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:  # an unknown configuration
        raise ModelError(
            f"{path} can't be loaded by the pinned transformers: {type(error).__name__}: {error}. Choose another base "
            "model (docs/base-models.md)"
        ) from error
    if sharded and config:
        quantize_when_moved(model, config)
    if config or saved_quantized:
        warn_of_experts(model)
    attend_packed(model)
    keep_packing(model)
    keep_head_input_contiguous(model)
    dequantized = {"quantized": False, "dequantized": True, "sharded": False}[method.residency]
    if dequantized and (method.load_in_4bit or method.load_in_8bit):
        model = model.dequantize(dtype=dtype)
    return model.requires_grad_(False).eval()


@contextlib.contextmanager
def causes_named(path: Path) -> Iterator[None]:
    """Within the block, an error of transformers while it loads weights says what failed.

    transformers catches what fails while it converts or quantizes a tensor, most often for lack of GPU memory. It logs
    that as a warning, and raises a RuntimeError that names no cause.

    Args:
        path: the model's folder, for messages.

    Raises:
        torch.OutOfMemoryError: no memory for a tensor.
        ModelError: anything else.
    """
    report, logger = io.StringIO(), logging.getLogger("transformers.modeling_utils")
    handler, level, propagate = logging.StreamHandler(report), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if not report.getvalue():
            raise
        causes = re.findall(r"^(?:\w+\.)*(\w+Error): (.+)", report.getvalue(), re.MULTILINE)
        name, message = causes[-1] if causes else ("", report.getvalue())
        if name == "OutOfMemoryError":
            raise torch.OutOfMemoryError(message) from error
        raise ModelError(f"{path} can't be loaded: {name or error}: {message}") from error
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def is_saved_as(method: Method, path: Path) -> bool:
    """Whether the folder holds quantized weights. Raises ModelError unless they are quantized as `method` would do."""
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} holds no config.json; expected a model folder: run `dvc repro fetch`")
    saved = json.loads((path / "config.json").read_text(encoding="utf-8")).get("quantization_config")
    if saved is None:
        return False
    bits = {key: bool(saved.get(key)) for key in ("load_in_4bit", "load_in_8bit")}
    if saved.get("quant_method", "bitsandbytes") != "bitsandbytes" or not any(bits.values()):
        raise ModelError(
            f"{path} was saved quantized by {saved.get('quant_method')}; expected unquantized weights, or those of "
            "bitsandbytes: choose the model's unquantized release"
        )
    defaults = {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False}  # BitsAndBytesConfig's own
    kind = {key: saved.get(key, default) for key, default in defaults.items()} if bits["load_in_4bit"] else {}
    other = {key: value for key, value in (bits | kind).items() if getattr(method, key) != value}
    if other:
        found = ", ".join(f"{key}: {json.dumps(value)}" for key, value in (bits | kind).items())
        asked = ", ".join(f"{key}: {json.dumps(getattr(method, key))}" for key in other)
        raise ModelError(
            f"{path} was saved quantized, with {found}, and the method has {asked}; expected the same, since saved "
            "weights are used as they are: choose a method with these keys, or the model's unquantized release"
        )
    return True


def warn_of_experts(model: PreTrainedModel) -> None:
    """Warns of weights that bitsandbytes does not quantize: experts are 3-D parameters, not linear layers."""
    parts = [part for module in model.modules() if not isinstance(module, CONVOLUTIONS) for part in own_weights(module)]
    experts = sum(weight.nbytes for weight in parts if weight.dim() == 3)
    if experts and is_main_process():
        share = experts / sum(weight.nbytes for weight in parts)
        print(
            f"WARNING: {type(model).__name__}: {share:.0%} of the bytes are experts, which bitsandbytes does not "
            f"quantize: they stay in {str(model.dtype).removeprefix('torch.')}",
            flush=True,
        )


def own_weights(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))


def is_to_be_sharded(method: Method) -> bool:
    """Whether decoder layers will be sharded over several processes."""
    return method.residency == "sharded" and world_size() > 1


def require_gpu_build() -> None:
    """Raises ModelError where bitsandbytes has no kernels for this GPU. Its own errors come later and say less."""
    if not getattr(cextension.lib, "compiled_with_cuda", False):
        raise ModelError(
            f"bitsandbytes {bnb.__version__} has no library for CUDA {torch.version.cuda}, so it can't quantize on "
            "this GPU: install the release pinned in requirements.txt, or choose method lora"
        )


def quantization(method: Method, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """bitsandbytes' configuration for a method, or None for unquantized weights."""
    if method.load_in_8bit:
        return BitsAndBytesConfig(load_in_8bit=True)
    if method.load_in_4bit:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=method.bnb_4bit_quant_type,
            bnb_4bit_use_double_quant=method.bnb_4bit_use_double_quant,
            bnb_4bit_compute_dtype=dtype,
        )
    return None


def quantize_when_moved(model: PreTrainedModel, config: BitsAndBytesConfig) -> None:
    """Replaces the linear layers of the decoder layers, and no others, by 4-bit ones. Their weights are quantized when
    a layer is moved to its GPU: the CPU would take minutes for what a GPU does in seconds."""
    for layer in decoder_layers(model):
        for name, linear in list(layer.named_modules()):
            if type(linear) is nn.Linear:
                kind = (config.bnb_4bit_compute_dtype, config.bnb_4bit_use_double_quant, config.bnb_4bit_quant_type)
                with torch.device("meta"):
                    quantized = bnb.nn.Linear4bit(
                        linear.in_features, linear.out_features, linear.bias is not None, *kind
                    )
                quantized.weight = bnb.nn.Params4bit(
                    linear.weight.data,
                    requires_grad=False,
                    compress_statistics=config.bnb_4bit_use_double_quant,
                    quant_type=config.bnb_4bit_quant_type,
                    module=quantized,
                )
                quantized.bias = linear.bias
                layer.set_submodule(name, quantized)
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # peft looks at this


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The decoder layers, first to last."""
    names = set(model._no_split_modules or [])
    # FSDP2 gives a sharded layer a class of its own, which inherits from the layer's.
    return [module for module in model.modules() if any(kind.__name__ in names for kind in type(module).__mro__)]


def load_tokenizer(path: Path = BASE_MODEL) -> PreTrainedTokenizerBase:
    """Loads the tokenizer. Where it has no padding token, the end-of-text token pads. Raises ModelError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # tokenizers raise errors of any type
        raise ModelError(
            f"the tokenizer in {path} can't be loaded: {type(error).__name__}: {error}. Run `dvc repro fetch --force`, "
            "or choose another base model"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"the tokenizer in {path} has neither an eos_token nor a pad_token; expected one to pad rows with: name "
            "it in tokenizer_config.json, or choose another base model"
        )
    return tokenizer
