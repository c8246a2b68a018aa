"""The largest batch that fits on a GPU, according to the formula in stages/plan/memory.py."""

from transformers import PretrainedConfig

from stages.params import Method
from stages.plan.memory import step_memory

GB = 1e9  # a card sold as 24 GB has 24.1 to 25.8 of these
CUDA_CONTEXT = 0.5 * GB  # bytes that CUDA itself takes of a card
MARGIN = 1.1  # on top of the formula: its error, and what an allocator loses between tensors
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


def largest_batch(
    config: PretrainedConfig, method: Method, r: int, tokens: int, checkpointing: bool, gpu_bytes: float, gpus: int = 1
) -> tuple[int, float] | None:
    """The largest of BATCHES that fits, and its predicted peak in bytes; None if not even one text fits.

    Args:
        config: the base model's configuration.
        method: how the base model is loaded.
        r: rank of the adapters.
        tokens: tokens of each text, prompt included.
        checkpointing: whether each decoder layer keeps its input alone.
        gpu_bytes: memory of each GPU.
        gpus: number of GPUs, over which the batch is distributed.
    """
    peaks = {
        batch: step_memory(config, method, r, batch, tokens, checkpointing, processes=gpus).peak for batch in BATCHES
    }
    fitting = [batch for batch, peak in peaks.items() if peak * MARGIN + CUDA_CONTEXT <= gpu_bytes]
    return (fitting[-1], peaks[fitting[-1]]) if fitting else None
