"""The requests and answers of the server, as its OpenAPI document shows them, and how a request is read."""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.data.jsonl import parse_json_object
from stages.data.values import is_visible, require_encodable, shorten
from stages.serve.guard import ApiError

MOST_SOURCE = 500  # characters of a source or a group

Probability = Annotated[float, Field(ge=0, le=1)]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ClassifyRequest(Request):
    """One text or several."""

    input: str | list[str] = Field(description="A text, or a list of texts", examples=["您好，您的快递到了。"])
    threshold: Probability | None = Field(
        None, description="Probability from which on a text is called fraud. Without it, the model's own"
    )
    explain: bool = Field(False, description="Whether to say what each sentence does to the score. It costs as much "
                          "as the text once for each of its sentences")  # fmt: skip

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class VerdictRequest(Request):
    """A person's verdict on a text."""

    input: str = Field(description="The text as it was shown")
    label: bool = Field(description="true for fraud")
    source: str = Field("api", max_length=MOST_SOURCE, description="Where the text comes from, as file and line")
    group: str = Field("", max_length=MOST_SOURCE, description="The case that it belongs to, if it is known")
    probability: Probability | None = Field(None, description="The model's probability of fraud")


class ForgetVerdictRequest(Request):
    """The text whose verdict is taken back."""

    input: str


class KnownRequest(Request):
    """Texts of which the caller wants to know whether somebody has judged them."""

    input: list[str]


class SentenceAnswer(BaseModel):
    text: str
    start: int = Field(description="First character of the sentence in the text, in Unicode code points")
    end: int
    effect: float = Field(description="Log-odds of fraud with the sentence minus without it")


class TextAnswer(BaseModel):
    label: bool = Field(description="Whether the text is called fraud: probability >= threshold")
    probability: float = Field(description="Calibrated probability of fraud")
    log_odds: float = Field(description="Calibrated log-odds of fraud")
    truncated: bool = Field(description="Whether the text was longer than the model reads, and was cut")
    band: Literal["block", "review", "pass"] | None = Field(
        None, description="Only of a model with bands: what to do with the text. It doesn't depend on threshold"
    )
    sentences: list[SentenceAnswer] | None = Field(None, description="Only with explain")


class ClassifyAnswer(BaseModel):
    """Results in the order of the texts."""

    id: str = Field(description="Of this request, as in the audit log and in the header X-Request-Id")
    model: str = Field(description="Which model answered")
    threshold: float
    results: list[TextAnswer]


class VerdictsAnswer(BaseModel):
    verdicts: int = Field(description="Texts that have a verdict")


class KnownAnswer(BaseModel):
    labels: list[bool | None] = Field(description="Of each text, null without a verdict")


class WaitingText(BaseModel):
    input: str
    probability: float
    source: str
    group: str


class QueueAnswer(BaseModel):
    waiting: int = Field(description="How many texts wait between the two bounds")
    texts: list[WaitingText] = Field(description="The first of them")


class ErrorAnswer(BaseModel):
    error: str = Field(description="What was found, and what was expected, in a sentence")


Order = Literal["informative", "newest"]
R = TypeVar("R", bound=Request)


def parse(kind: type[R], body: bytes, content_type: str) -> R:
    """The request in a body. Raises ApiError with 415 or 422, and a sentence that says what is wrong."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        # A page of a stranger can't send this type without asking first, which is refused.
        raise ApiError(415, f"Content-Type is {shorten(content_type)}; expected application/json")
    try:
        values = parse_json_object(body)
    except ValueError as error:
        raise ApiError(422, f"the body is no JSON object: {error}") from None
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ApiError(422, sentence_of(error, list(kind.model_fields))) from None


def sentence_of(error: ValidationError, keys: list[str]) -> str:
    """The first problem of a request in a sentence."""
    problems = error.errors(include_url=False)
    first = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])  # a typing error
    key = str(first["loc"][0])
    found = shorten(first["input"])
    match first["type"]:
        case "missing":
            return f"the key {key} is missing; expected {', '.join(keys)}"
        case "extra_forbidden":
            return f"unknown key {shorten(key)}; expected {', '.join(keys)}"
        case _ if key == "input" and len(first["loc"]) > 1:
            expected = "a text, or a list of texts" if keys[0] == "input" and "explain" in keys else "a list of texts"
            return f"input holds {found}; expected {expected}"
        case _:
            return f"{key} is {found}; {first['msg'].replace('Input should be', 'expected')}"


def require_texts(texts: list[str], most: int, most_characters: int) -> None:
    """Raises ApiError if there are too many texts or none, or one that is too long, blank or can't be encoded."""
    if not texts:
        raise ApiError(422, "input holds no text; expected one or more")
    if len(texts) > most:
        raise ApiError(413, f"{len(texts)} texts; expected at most {most} in a request")
    for number, text in enumerate(texts, 1):
        where = f"text {number} of {len(texts)}" if len(texts) > 1 else "the text"
        if len(text) > most_characters:
            raise ApiError(413, f"{where} has {len(text)} characters; expected at most {most_characters}")
        if not is_visible(text):
            raise ApiError(422, f"{where} is {shorten(text)}; expected a text that is not blank")
        try:
            require_encodable(text)
        except ValueError as error:
            raise ApiError(422, f"{where}: {error}") from None
