"""The prompt around a text, and the two tokens that answer it.

The prompt ends with the start of the assistant's answer, `{"is_fraud":`, so that the next token is the verdict: ` true`
or ` false`. Instruction and text are tokenized separately, and the text never yields special tokens. So no text can end
its turn early or start the answer itself.
"""

from dataclasses import dataclass
from typing import Literal, assert_never

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from stages.errors import UserError

ANSWER_PREFIX = '{"is_fraud":'
LABEL_WORDS = {True: " true", False: " false"}
ANSWER_END = "}"
# For models without a chat template.
PLAIN_TEMPLATE = "{instruction}\n\n{text}\n\n"
PLACEHOLDER = "⟦text⟧"
BETWEEN = "\n\n"  # between repetitions of a text
LOST = {"right": "end", "left": "beginning", "middle": "middle"}  # what a long text loses, by prompt.truncation_side
GAP = " … "  # in place of what is cut from the middle of a text


class PromptError(UserError):
    """A prompt that can't be built with this tokenizer or these params."""


@dataclass(frozen=True)
class Prompt:
    """Token ids of everything but the text.

    prefix and suffix surround the text, and between separates its repetitions. answer_prefix starts the answer,
    label_ids[label] is the token that decides it, and end follows it. max_length counts the tokens of prompt and
    answer. truncation_side: what a longer text loses, "right", "left" or "middle", which gap replaces. rendered: the
    prompt as text, `before` and `after` the user's text. It is kept with a trained model, because a chat template may
    write today's date.
    """

    tokenizer: PreTrainedTokenizerBase
    prefix: list[int]
    suffix: list[int]
    between: list[int]
    repetitions: int
    answer_prefix: list[int]
    label_ids: dict[bool, int]
    end: list[int]
    max_length: int
    truncation_side: Literal["right", "left", "middle"]
    gap: list[int]
    rendered: dict[str, str]

    @property
    def room(self) -> int:
        """The number of tokens left for a text."""
        around = len(self.prefix) + len(self.suffix) + len(self.answer_prefix) + 1 + len(self.end)
        return (self.max_length - around - (self.repetitions - 1) * len(self.between)) // self.repetitions

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each whole text. Special tokens in a text, such as <|im_end|>, become plain characters."""
        if not texts:
            return []
        return self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def encode(self, text_ids: list[int], answer_prefix: bool = True) -> list[int]:
        """The model's input for a tokenized text, with or without the prefix of the answer."""
        text = self.truncate(text_ids)
        repeated = text + (self.between + text) * (self.repetitions - 1)
        return self.prefix + repeated + self.suffix + (self.answer_prefix if answer_prefix else [])

    def truncate(self, text_ids: list[int]) -> list[int]:
        """A text cut to at most `room` tokens."""
        room = self.room
        if len(text_ids) <= room:
            return text_ids
        if self.truncation_side == "right":
            return text_ids[:room]
        if self.truncation_side == "left":
            return text_ids[len(text_ids) - room :]
        if self.truncation_side != "middle":
            assert_never(self.truncation_side)
        kept = room - len(self.gap)
        return text_ids[: kept - kept // 2] + self.gap + text_ids[len(text_ids) - kept // 2 :]

    def answer(self, label: bool) -> list[int]:
        """The whole answer: answer_prefix, label word, end."""
        return [*self.answer_prefix, self.label_ids[label], *self.end]


def build_prompt(
    tokenizer: PreTrainedTokenizerBase,
    instruction: str,
    max_length: int,
    repetitions: int = 1,
    truncation_side: Literal["right", "left", "middle"] = "right",
    rendered: dict[str, str] | None = None,
) -> Prompt:
    """Builds the prompt for a tokenizer.

    Args:
        tokenizer: the base model's, with its chat template.
        instruction: the question to the model.
        max_length: tokens of prompt and answer, at most.
        repetitions: how often the prompt repeats the text.
        truncation_side: what a longer text loses: "right", "left" or "middle".
        rendered: the prompt of an earlier training, `before` and `after` the text; None renders the template now.

    Raises PromptError if the label words aren't one token each, or if the instruction leaves no room for a text.
    """
    rendered = rendered or render(tokenizer, instruction)
    protect_marks(tokenizer, rendered)
    answer_prefix = token_ids(tokenizer, ANSWER_PREFIX)
    prompt = Prompt(
        tokenizer=tokenizer,
        prefix=token_ids(tokenizer, rendered["before"]),
        suffix=token_ids(tokenizer, rendered["after"]),
        between=token_ids(tokenizer, BETWEEN),
        repetitions=repetitions,
        answer_prefix=answer_prefix,
        label_ids={label: label_id(tokenizer, answer_prefix, word) for label, word in LABEL_WORDS.items()},
        end=[*token_ids(tokenizer, ANSWER_END), tokenizer.eos_token_id],
        max_length=max_length,
        truncation_side=truncation_side,
        gap=token_ids(tokenizer, GAP),
        rendered=rendered,
    )
    if prompt.room < 16:
        raise PromptError(
            f"prompt.max_length is {max_length}, which leaves {prompt.room} tokens for a text; expected at least 16: "
            "raise it, or shorten prompt.instruction, or lower prompt.repetitions"
        )
    return prompt


def report_truncated(stage: str, name: str, truncated: int, total: int, side: str) -> None:
    """Prints a warning if texts of a set are cut.

    Args:
        stage: the stage that prints it.
        name: of the set.
        truncated: how many texts are cut.
        total: how many texts there are.
        side: prompt.truncation_side.
    """
    if truncated:
        print(
            f"{stage}: WARNING: {truncated} of {total} texts of {name} ({truncated / total:.1%}) are longer than "
            f"prompt.max_length allows and lose their {LOST[side]} (prompt.truncation_side {side})"
        )


def tells_the_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template writes today's date into the prompt."""
    return "strftime_now" in str(tokenizer.chat_template or "")


def render(tokenizer: PreTrainedTokenizerBase, instruction: str) -> dict[str, str]:
    """The prompt as text, `before` and `after` the user's text. Raises PromptError if the template can't be used."""
    if tokenizer.chat_template:
        user = {"role": "user", "content": f"{instruction}\n{PLACEHOLDER}"}
        try:
            whole = str(tokenizer.apply_chat_template([user], add_generation_prompt=True, tokenize=False))
        except TemplateError as error:  # such as a template that tries to leave its sandbox
            raise PromptError(
                f"the base model's chat template can't be used: {error}. Choose another base model"
            ) from None
    else:
        bos = tokenizer.bos_token or ""
        whole = bos + PLAIN_TEMPLATE.format(instruction=instruction, text=PLACEHOLDER)
    if whole.count(PLACEHOLDER) != 1:
        raise PromptError(
            "the base model's chat template does not repeat the user's text once and unchanged: "
            "choose another base model"
        )
    before, after = whole.split(PLACEHOLDER)
    return {"before": before, "after": after}


def protect_marks(tokenizer: PreTrainedTokenizerBase, rendered: dict[str, str]) -> None:
    """Makes the marks of turns in the prompt special tokens, so that no text can contain them.

    Some tokenizers (DeepSeek's) have marks of turns among the added tokens that aren't special. Gemma's has line ends
    there, so tokens of white space alone stay as they are.
    """
    used = {*token_ids(tokenizer, rendered["before"]), *token_ids(tokenizer, rendered["after"])}
    added = [token for number, token in tokenizer.added_tokens_decoder.items() if number in used]
    marks = [token for token in added if not token.special and token.content.strip()]
    for token in marks:
        token.special = True
    if marks:
        tokenizer.add_tokens(marks, special_tokens=True)


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def label_id(tokenizer: PreTrainedTokenizerBase, answer_prefix: list[int], word: str) -> int:
    """The one token of a label word after the answer prefix. Raises PromptError if there are several."""
    ids = token_ids(tokenizer, ANSWER_PREFIX + word)
    if ids[:-1] != answer_prefix:
        pieces = tokenizer.convert_ids_to_tokens(ids)
        raise PromptError(
            f"the base model's tokenizer reads {ANSWER_PREFIX + word!r} as {pieces}; expected the tokens of "
            f"{ANSWER_PREFIX!r} and one more for the label word: choose another base model"
        )
    return ids[-1]
