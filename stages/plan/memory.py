"""How much of a GPU's memory a training step needs, by formula: for decoders as Llama and Qwen2 have them, trained
with the profile `plain` on a GPU with bfloat16 arithmetic.

N tokens (those of the prompt's start once), L blocks, hidden size h, inner size i, queries q, keys k (heads times
their size), rank r, V words. Bytes:

    weights       2 a number that stays unquantized (norms, embeddings); of the blocks' matrices 2 (LoRA),
                  1 + 4 a row (int8), 1/2 + 4/64 (NF4), 1/2 + 1/64 + 4/(64 * 256) (NF4, double quantization):
                  arXiv:2208.07339, arXiv:2305.14314
    adapters      4 a number, r (in + out) numbers a matrix; gradients as many; AdamW's two means twice as many
    activations   of one block, what autograd keeps for the backward pass, a token:
                  2 norms' inputs in float32 (8h) and results (4h), queries and attention's result (4q), keys and values
                  (4k; the prompt's start again for each text), gate, its SiLU, up and their product (8i), the
                  adapters' middles (14r). Frozen matrices keep nothing (their inputs are the adapters').
                  Checkpointing keeps a block's input (2h) and, in the backward pass, one block's activations.
    head          embeddings, last norm (6h a token); logits of the answers' tokens in bfloat16, float32, as log
                  probabilities and their gradient (14V an answer's token)
    workspace     the backward pass within a block (2i + 8h a token); one matrix dequantized (2 a number);
                  the matrix libraries' own; where blocks are split over GPUs (FSDP2), those that are gathered
"""

from dataclasses import dataclass

from transformers import PretrainedConfig

from stages.params import Method

LIBRARIES = 70e6  # bytes that cuBLAS and the like held on an H100
GATHERED = 3  # blocks that a GPU holds in full where they are split: one at work, the next, and what it comes from


@dataclass(frozen=True)
class StepMemory:
    """Bytes of the parts of a training step, and of the most that is in use at one time."""

    weights: float
    adapters: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    workspace: float
    peak: float


def block_matrices(config: PretrainedConfig) -> list[tuple[int, int]]:
    """(in, out) of the linear layers of one block: q, k, v, o, gate, up, down."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = head_sizes(config)
    attention = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
    return [*attention, (hidden, inner), (hidden, inner), (inner, hidden)]


def head_sizes(config: PretrainedConfig) -> tuple[int, int]:
    """q and k: numbers of all queries, and of all keys, of a token."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return head * config.num_attention_heads, head * config.num_key_value_heads


def block_bytes(config: PretrainedConfig, method: Method) -> tuple[float, float]:
    """Of one block's matrices as `method` loads them, and of their quantization constants."""
    matrices = block_matrices(config)
    numbers = sum(rows * columns for rows, columns in matrices)
    if method.residency == "dequantized" or not (method.load_in_4bit or method.load_in_8bit):
        return 2.0 * numbers, 0.0
    if method.load_in_8bit:
        return 1.0 * numbers, 4.0 * sum(columns for _, columns in matrices)
    return 0.5 * numbers, numbers * (1 / 64 + 4 / (64 * 256) if method.bnb_4bit_use_double_quant else 4 / 64)


def weight_bytes(config: PretrainedConfig, method: Method, processes: int = 1) -> float:
    """Of the base model as `method` loads it, for each of so many processes."""
    matrices, constants = block_bytes(config, method)
    embeddings = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    split = processes if method.residency == "sharded" else 1
    return config.num_hidden_layers * (matrices / split + constants) + 2.0 * embeddings


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
    """Of one optimizer step on `batch` texts of `tokens` tokens each, prompt included, whose first `shared` they have
    in common, and of whose answers `answer_tokens` are trained on. Adapters on all matrices of the blocks. Of several
    processes, each of which has its share of the batch, the one with most of it."""
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    queries, keys = head_sizes(config)
    matrices = block_matrices(config)
    batch = -(-batch // processes)
    n = shared + batch * (tokens - shared)
    weights = weight_bytes(config, method, processes)
    adapters = 4.0 * layers * r * sum(map(sum, matrices))
    block = n * (12 * hidden + 4 * queries + 8 * inner + 14 * r) + (n + batch * shared) * 4 * keys
    activations = n * 6.0 * hidden + layers * (n * 2 * hidden if checkpointing else block)
    logits = 14.0 * batch * answer_tokens * config.vocab_size
    quantized = method.load_in_8bit or method.load_in_4bit
    unpacked = 2 * hidden * inner if quantized and method.residency != "dequantized" else 0
    gathered = GATHERED * block_bytes(config, method)[0] if processes > 1 and method.residency == "sharded" else 0
    workspace = n * (2 * inner + 8 * hidden) + unpacked + (block if checkpointing else 0) + gathered
    # The backward pass begins with all activations and no gradients, and ends in the first block with the reverse.
    begin = activations + max(workspace, logits)
    end = adapters + activations / layers + workspace
    peak = weights + adapters + 2 * adapters + LIBRARIES + max(begin, end)
    return StepMemory(
        weights, adapters, adapters, 2 * adapters, activations, logits, workspace + LIBRARIES, float(peak)
    )
