"""The prompt around a text, and the two tokens that answer it.

The prompt ends with the assistant's turn already begun, `{"is_fraud":`, so that the next token is the verdict: ` true`
or ` false`. Instruction and text are tokenized apart and the text never yields special tokens, so no text can end its
turn early or start the answer itself.
"""

from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from stages import UserError

CUE = '{"is_fraud":'
LABEL_WORDS = {True: " true", False: " false"}
ANSWER_END = "}"
# For base models, which have no chat template.
PLAIN_TEMPLATE = "{instruction}\n\n{text}\n\n"
PLACEHOLDER = "⟦text⟧"
BETWEEN = "\n\n"  # repetitions of a text


class PromptError(UserError):
    """The tokenizer or the params don't allow the prompt."""


@dataclass(frozen=True)
class Prompt:
    """Token ids of everything but the text.

    prefix and suffix surround the text, between stands between its repetitions; cue starts the answer; label_ids[label]
    is the token that decides it, end what follows it. max_length counts prompt and answer.
    """

    tokenizer: PreTrainedTokenizerBase
    prefix: list[int]
    suffix: list[int]
    between: list[int]
    repetitions: int
    cue: list[int]
    label_ids: dict[bool, int]
    end: list[int]
    max_length: int

    @property
    def room(self) -> int:
        """Tokens left for a text."""
        around = len(self.prefix) + len(self.suffix) + len(self.cue) + 1 + len(self.end)
        return (self.max_length - around - (self.repetitions - 1) * len(self.between)) // self.repetitions

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text alone, whole; marks such as <|im_end|> in it are spelled out as plain characters."""
        if not texts:
            return []
        return self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def encode(self, text_ids: list[int], cue: bool = True) -> list[int]:
        """The model's input for a tokenized text: up to the cue, or without it, up to the start of the answer."""
        text = text_ids[: self.room]
        repeated = text + (self.between + text) * (self.repetitions - 1)
        return self.prefix + repeated + self.suffix + (self.cue if cue else [])

    def answer(self, label: bool) -> list[int]:
        """The whole answer: cue, label word, end."""
        return [*self.cue, self.label_ids[label], *self.end]


def build_prompt(tokenizer: PreTrainedTokenizerBase, instruction: str, max_length: int, repetitions: int = 1) -> Prompt:
    """Lays the prompt out for a tokenizer. Raises PromptError if the label words aren't one token each, or if the
    instruction leaves no room for a text."""
    before, after = render(tokenizer, instruction)
    cue = token_ids(tokenizer, CUE)
    prompt = Prompt(
        tokenizer=tokenizer,
        prefix=token_ids(tokenizer, before),
        suffix=token_ids(tokenizer, after),
        between=token_ids(tokenizer, BETWEEN),
        repetitions=repetitions,
        cue=cue,
        label_ids={label: label_id(tokenizer, cue, word) for label, word in LABEL_WORDS.items()},
        end=[*token_ids(tokenizer, ANSWER_END), tokenizer.eos_token_id],
        max_length=max_length,
    )
    if prompt.room < 16:
        raise PromptError(
            f"prompt.max_length is {max_length}, which leaves {prompt.room} tokens for a text; expected at least 16: "
            "raise it, or shorten prompt.instruction, or lower prompt.repetitions"
        )
    return prompt


def render(tokenizer: PreTrainedTokenizerBase, instruction: str) -> tuple[str, str]:
    """The prompt's text before and after the user's text."""
    if tokenizer.chat_template:
        user = {"role": "user", "content": f"{instruction}\n{PLACEHOLDER}"}
        try:
            whole = tokenizer.apply_chat_template([user], add_generation_prompt=True, tokenize=False)
        except TemplateError as error:  # one that tries to leave its sandbox, among others
            raise PromptError(
                f"the base model's chat template can't be used: {error}. Choose another base model"
            ) from None
    else:
        bos = tokenizer.bos_token or ""
        whole = bos + PLAIN_TEMPLATE.format(instruction=instruction, text=PLACEHOLDER)
    if whole.count(PLACEHOLDER) != 1:
        raise PromptError("the chat template of the base model does not repeat the user's text once and unchanged")
    before, after = whole.split(PLACEHOLDER)
    return before, after


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def label_id(tokenizer: PreTrainedTokenizerBase, cue: list[int], word: str) -> int:
    ids = token_ids(tokenizer, CUE + word)
    if ids[:-1] != cue:
        pieces = tokenizer.convert_ids_to_tokens(ids)
        raise PromptError(
            f"the base model's tokenizer reads {CUE + word!r} as {pieces}; expected the tokens of {CUE!r} and one more "
            "for the label word: choose another base model"
        )
    return ids[-1]
