"""Published models' configurations, known without a download."""

from transformers import Qwen2Config

from stages.errors import UserError

# From the published config.json of Qwen2(.5)-…-Instruct.
SHAPES = {
    "qwen2-0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
    "qwen2-1.5b": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
    "qwen2-7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
}
KEY_VALUE_HEADS = {"qwen2-0.5b": 2, "qwen2-1.5b": 2, "qwen2-7b": 4}
VOCABULARY = {"qwen2-0.5b": 151936, "qwen2-1.5b": 151936, "qwen2-7b": 152064}


def config_of(shape: str) -> Qwen2Config:
    """Raises UserError for a name that is not in SHAPES."""
    if shape not in SHAPES:
        raise UserError(f"shape: found {shape!r}; expected one of {', '.join(SHAPES)}")
    return Qwen2Config(
        **SHAPES[shape],
        num_key_value_heads=KEY_VALUE_HEADS[shape],
        vocab_size=VOCABULARY[shape],
        tie_word_embeddings=shape != "qwen2-7b",
        max_position_embeddings=32768,
        rope_theta=1e6,
        dtype="bfloat16",
    )
