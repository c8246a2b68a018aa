"""How much of a GPU's memory a training step needs, by formula."""

from transformers import PretrainedConfig


def block_matrices(config: PretrainedConfig) -> list[tuple[int, int]]:
    """(in, out) of the linear layers of one block of a decoder as Llama, Qwen2 and Gemma 3 have it: q, k, v, o, gate,
    up, down."""
    hidden, inner = config.hidden_size, config.intermediate_size
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    queries, keys = head * config.num_attention_heads, head * config.num_key_value_heads
    attention = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
    return [*attention, (hidden, inner), (hidden, inner), (inner, hidden)]
