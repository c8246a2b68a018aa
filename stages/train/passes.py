"""A forward and backward pass as train.profile says: plain, or compiled and as a CUDA graph."""

import gc
from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.nn import functional

from stages.distributed import is_main_process
from stages.model.cuda_graphs import can_compile, compile_layers, waits_for_gpu
from stages.model.forward import completion_logits, label_rows, packed_logits
from stages.model.fsdp import is_sharded
from stages.model.fused_lora import FusedAdapters
from stages.model.layout import Layout, layout_of, underlying
from stages.model.packed_attention import FEW_SHAPES, has_varlen, pack
from stages.model.scoring import label_words
from stages.params import Train
from stages.text.batching import IGNORED
from stages.text.prompt import Prompt
from stages.train.arguments import PROFILES, checkpoints_activations
from stages.train.captured_gradients import CapturedGradients
from stages.train.gradients import Gradients
from stages.train.loss import answer_loss

Batch = dict[str, torch.Tensor]


class Passes:
    """Adds the gradients of rows that fit in memory to those of the optimizer step.

    Args:
        model: the base model with adapters, whose layout is chosen.
        params: the section train: profile, dropout, loss.
        prompt: the prompt around each text.
    """

    def __init__(self, model: PeftModel, params: Train, prompt: Prompt):
        self.model, self.params = model, params
        self.shared = len(prompt.prefix)  # tokens of the shared prompt prefix
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.separate = Gradients(self.parameters)
        self.head = model.get_output_embeddings().weight
        self.words = label_words(prompt, self.head.device) if params.loss == "binary" else None
        self.sharded = is_sharded(model)  # processes pass through the model together
        self.fused: FusedAdapters | None = None
        self.profile = PROFILES[params.profile]
        self.prepare(checkpoints_activations(params))

    @property
    def gradients(self) -> Gradients | CapturedGradients:
        """Where the passes leave their gradients."""
        return self.separate if self.captured is None else self.captured

    def forward_backward(self, batch: Batch, tokens: torch.Tensor | int) -> torch.Tensor:
        """The batch's part of the step's loss, from one pass.

        Args:
            batch: input_ids (B, T), positions (B, K), labels (B, 1 + K), on the CPU.
            tokens: answer tokens of the optimizer step.
        """
        if self.captured is not None:
            return self.captured(self.packed(batch, tokens))
        loss = self.loss(batch, tokens)
        loss.backward()
        return loss.detach()

    def loss(self, batch: Batch, tokens: torch.Tensor | int | None = None) -> torch.Tensor:
        """Of a plain pass. tokens: None for those of the batch."""
        labels = batch["labels"][:, 1:].to(self.head.device)
        logits = self.logits(lambda: completion_logits(self.model, batch, self.shared))
        return answer_loss(logits, labels, labels.ne(IGNORED).sum() if tokens is None else tokens)

    def packed_loss(self, packed: dict[str, Any]) -> torch.Tensor:
        """The same of what `packed` gives, on the GPU, in operations that a CUDA graph can hold."""
        inputs = {name: value for name, value in packed.items() if name not in ("labels", "tokens")}
        logits = self.logits(lambda: packed_logits(self.model, inputs))
        return answer_loss(logits, packed["labels"], packed["tokens"])

    def logits(self, forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Logits (B, K, vocabulary), or (B, K, 2) of the label words alone, as scores are computed."""
        if self.words is None:
            return forward()
        with label_rows(self.model, self.words, vocabulary=False) as alone:
            logits = forward()
        return logits if alone else logits.index_select(-1, self.words)

    def packed(self, batch: Batch, tokens: torch.Tensor | int) -> dict[str, Any]:
        """What a CUDA graph takes: the batch packed into one of few shapes, its labels, and the step's tokens."""
        varlen = has_varlen(self.head.device, self.head.dtype)
        packed: dict[str, Any] = pack(batch, self.shared, varlen, **FEW_SHAPES)
        labels = batch["labels"][:, 1:]
        empty = packed["positions"].shape[1] - len(labels)
        packed["labels"] = functional.pad(labels, (0, 0, 0, empty), value=IGNORED)
        packed["tokens"] = torch.as_tensor(tokens, dtype=torch.float32)
        return packed

    def packed_tokens(self, batch: Batch) -> int:
        return self.shared + int((batch["positions"][:, -1] + 1 - self.shared).sum())

    def prepare(self, checkpointing: bool) -> None:
        """Compiles layers and prepares CUDA graphs as the profile says. Passes stay plain on a CPU, with sharded
        layers, where texts are not packed, and where random numbers would have to be drawn again in the same way.

        Compiled layers keep their activations or not by themselves. torch's checkpointing is for plain ones.
        """
        cuda = self.head.device.type == "cuda"
        packed = layout_of(self.model) is Layout.PACKED
        if not packed and cuda and self.profile.captured and is_main_process():
            print("train: WARNING: without packing, train.profile compiles and captures nothing: passes are plain")
        on_gpu = cuda and not self.sharded and packed and not (checkpointing and is_random(self.model))
        waits = waits_for_gpu(self.model) if on_gpu and self.profile.captured else None
        if waits and is_main_process():
            print(f"train: WARNING: train.profile compiles and captures nothing, since {waits}: passes are plain")
        on_gpu = on_gpu and not waits
        compiled = on_gpu and self.profile.compiled
        if compiled and not can_compile():
            compiled = False
            if is_main_process():
                print("train: WARNING: without Triton, Python.h and gcc or clang, train.profile compiles nothing")
        # Fused layers stay: to fuse them again, memory would have to hold the weights twice.
        if compiled and self.fused is None:
            self.fused = FusedAdapters(self.model)
        elif not compiled and self.fused is not None:
            self.fused.undo()
            self.fused = None
        compile_layers(self.model, compiled, checkpointing)
        if checkpointing and not compiled:
            self.model.activation_checkpointing_enable({"use_reentrant": False})
        captured = on_gpu and self.profile.captured and (compiled or not checkpointing)
        self.captured = CapturedGradients(self.packed_loss, self.parameters) if captured else None

    @property
    def saves_memory(self) -> bool:
        return self.profile == PROFILES["memory"]

    def save_memory(self) -> None:
        """Changes to the profile memory."""
        self.profile = PROFILES["memory"]
        self.captured = None
        gc.collect()  # which refers to itself: its gradients and graphs go before others come
        self.prepare(checkpointing=True)


def is_random(model: nn.Module) -> bool:
    """Whether a training pass draws random numbers: dropout of the adapters, or the base model's own."""
    own = underlying(model).config.get_text_config().to_dict()
    names = (name for name in own if any(word in name for word in ("drop", "jitter")))
    values = (own[name] for name in names if not name.startswith(("classifier", "summary")))  # of other heads
    modules = (module.p for module in model.modules() if isinstance(module, nn.Dropout))
    return any(isinstance(value, int | float) and value > 0 for value in (*values, *modules))
