"""A formula for the GPU memory of a training step: decoders built like Llama and Qwen2, profile `plain`, bfloat16.

A step's bytes, by part. r is the adapters' rank, "per token" counts the shared prompt prefix once.

| part        | bytes                                                                                                |
|-------------|------------------------------------------------------------------------------------------------------|
| weights     | per number of the decoder layers' matrices 2 (LoRA), 1 (int8), 1/2 (NF4), and quantization constants |
|             | (arXiv:2208.07339, arXiv:2305.14314); 2 per number of the embeddings                                 |
| adapters    | 4 per number, r * (inputs + outputs) numbers per matrix; their gradients the same; AdamW twice that  |
| activations | what autograd keeps per token, in each decoder layer (`layer_activations`) and around them           |
| logits      | of the answers' tokens: bfloat16, float32, log probabilities and their gradient                      |
| workspace   | what the backward pass needs within one decoder layer, and what the libraries hold                   |

Checkpointing keeps only a decoder layer's input, and one layer's activations during the backward pass.
"""

from dataclasses import dataclass

from transformers import PretrainedConfig

from stages.params import Method

LIBRARY_BYTES = 70e6  # what cuBLAS and the like held on an H100
GATHERED_LAYERS = 2  # sharded layers that a GPU holds whole at once: one at work, and the next
BFLOAT16, FLOAT32 = 2, 4  # bytes per number
NF4_BLOCK, DOUBLE_QUANT_BLOCK = 64, 256  # numbers per constant, and constants per constant of constants


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a training step's parts, and the peak of what is in use at one time."""

    weights: float
    adapters: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    workspace: float
    peak: float


def layer_matrices(config: PretrainedConfig) -> list[tuple[int, int]]:
    """(inputs, outputs) of a decoder layer's linear layers: q, k, v, o, gate, up, down."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = query_and_key_sizes(config)
    attention = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
    return [*attention, (hidden, inner), (hidden, inner), (inner, hidden)]


def query_and_key_sizes(config: PretrainedConfig) -> tuple[int, int]:
    """Numbers in all queries of a token, and in all its keys."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return head * config.num_attention_heads, head * config.num_key_value_heads


def layer_bytes(config: PretrainedConfig, method: Method) -> tuple[float, float]:
    """Bytes of one decoder layer's matrices as `method` loads them, and of their quantization constants."""
    matrices = layer_matrices(config)
    numbers = sum(rows * columns for rows, columns in matrices)
    if not is_quantized(method):
        return BFLOAT16 * float(numbers), 0.0
    if method.load_in_8bit:
        return 1.0 * numbers, FLOAT32 * float(sum(columns for _, columns in matrices))
    per_number = FLOAT32 / NF4_BLOCK
    if method.bnb_4bit_use_double_quant:  # the constants are 8-bit numbers with float32 constants of their own
        per_number = 1 / NF4_BLOCK + FLOAT32 / (NF4_BLOCK * DOUBLE_QUANT_BLOCK)
    return 0.5 * numbers, numbers * per_number


def is_quantized(method: Method) -> bool:
    """Whether the weights stay quantized on the GPU."""
    return method.residency != "dequantized" and (method.load_in_4bit or method.load_in_8bit)


def base_model_bytes(config: PretrainedConfig, method: Method, processes: int = 1) -> float:
    """Bytes of the base model in each of `processes` processes, as `method` loads it."""
    matrices, constants = layer_bytes(config, method)
    embeddings = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    shards = processes if method.residency == "sharded" else 1
    return config.num_hidden_layers * (matrices / shards + constants) + float(BFLOAT16) * embeddings


def adapter_bytes(config: PretrainedConfig, r: int) -> float:
    """Bytes of float32 adapters of rank r on all linear layers."""
    return float(FLOAT32) * config.num_hidden_layers * r * sum(map(sum, layer_matrices(config)))


def layer_activations(config: PretrainedConfig, r: int, tokens: int, keyed_tokens: int) -> int:
    """Bytes that autograd keeps of one decoder layer. Frozen matrices keep nothing beyond the adapters' inputs.

    Args:
        config: the base model's configuration.
        r: rank of the adapters.
        tokens: tokens in the batch, the shared prompt prefix once.
        keyed_tokens: tokens with keys and values of their own: the prefix again for each text.
    """
    queries, keys = query_and_key_sizes(config)
    norms = 2 * (FLOAT32 + BFLOAT16) * config.hidden_size  # two norms' inputs and results
    attention = 2 * BFLOAT16 * queries  # queries and attention's result
    gated = 4 * BFLOAT16 * config.intermediate_size  # gate, its SiLU, up, and their product
    ranks = 7 * BFLOAT16 * r  # between A and B of seven adapters
    return tokens * (norms + attention + gated + ranks) + keyed_tokens * 2 * BFLOAT16 * keys


def layer_workspace(config: PretrainedConfig, method: Method, tokens: int) -> int:
    """Bytes that the backward pass needs within one decoder layer besides its activations."""
    hidden, inner = config.hidden_size, config.intermediate_size
    dequantized = BFLOAT16 * hidden * inner if is_quantized(method) else 0  # the largest matrix
    return tokens * BFLOAT16 * (inner + 4 * hidden) + dequantized


def step_memory(
    config: PretrainedConfig,
    method: Method,
    r: int,
    batch: int,
    tokens: int,
    checkpointing: bool,
    shared: int = 0,
    answer_tokens: int = 1,
    processes: int = 1,
) -> StepMemory:
    """The memory of one optimizer step, in bytes, in the process with the largest share of the batch.

    Args:
        config: the base model's configuration.
        method: how the base model is loaded.
        r: rank of the adapters, which are on all linear layers.
        batch: texts in the step, over all processes.
        tokens: tokens of each text, prompt included.
        checkpointing: whether each decoder layer keeps its input alone.
        shared: tokens of the shared prompt prefix, which is computed once.
        answer_tokens: tokens of each answer that are trained on.
        processes: number of processes, one per GPU.
    """
    layers, texts = config.num_hidden_layers, -(-batch // processes)
    n = shared + texts * (tokens - shared)
    weights, adapters = base_model_bytes(config, method, processes), adapter_bytes(config, r)
    layer = layer_activations(config, r, n, n + texts * shared)
    kept = n * BFLOAT16 * config.hidden_size if checkpointing else layer
    around = n * float(FLOAT32 + BFLOAT16) * config.hidden_size  # the embeddings' result and the last norm
    activations = around + layers * kept
    logits = float(BFLOAT16 + 3 * FLOAT32) * texts * answer_tokens * config.vocab_size
    workspace = float(layer_workspace(config, method, n) + (layer if checkpointing else 0))
    if processes > 1 and method.residency == "sharded":
        workspace += GATHERED_LAYERS * layer_bytes(config, method)[0]
    # The backward pass begins with all activations and no gradients, and ends in the first layer with the reverse.
    begin = activations + max(workspace, logits)
    end = adapters + activations / layers + workspace
    optimizer = 2 * adapters
    peak = weights + adapters + optimizer + LIBRARY_BYTES + max(begin, end)
    return StepMemory(
        weights, adapters, adapters, optimizer, activations, logits, workspace + LIBRARY_BYTES, float(peak)
    )
