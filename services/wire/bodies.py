"""The bodies of requests, as models: the interface of OpenAI, and the object ``coe``."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from coe.core import MOST_EXPERTS
from coe.mode import Kind
from coe.services.wire.fields import (
    Bias,
    Caller,
    Count,
    Metadata,
    ModelName,
    Penalty,
    Positive,
    Seed,
    Share,
    Stop,
    Temperature,
    Wire,
    or_else,
    wrong,
)
from coe.services.wire.messages import Messages, check_conversation
from coe.services.wire.tools import FormatOrNone, FunctionsOrNone, ToolsOrNone
from coe.tenants import TENANT

MOST_ANSWERS: Final = 8
MOST_TEXTS: Final = 256
"""That are embedded at once."""

_Name = Annotated[str, Field(max_length=100)]
_Choice = Annotated[str, Field(pattern="^(none|auto|required)$")]
_Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class BudgetBody(Wire):
    """Ceilings of one request."""

    latency_ms: Positive | None = None
    ttft_ms: Positive | None = None
    energy_j: Positive | None = None
    cost_usd: Positive | None = None


class ExpertsBody(Wire):
    """Who may answer."""

    allow: Annotated[list[_Name], Field(min_length=1, max_length=1000)] | None = None
    deny: Annotated[list[_Name], Field(max_length=1000)] = Field(default=[])


class CoeBody(Wire):
    """The ``coe`` object of a request."""

    budget: BudgetBody = BudgetBody()
    experts: ExpertsBody = ExpertsBody()
    k: Annotated[int, Field(ge=1, le=MOST_EXPERTS)] | None = None
    mode: Literal["auto", Kind] = "auto"
    tenant: Annotated[str, Field(pattern=TENANT)] = ""
    retrieve: Literal["auto", "always", "never"] = "auto"
    explain: bool = False
    cache: bool = True


NOTHING_ASKED: Final = CoeBody()
"""What a body without the object says. All such bodies share it: a copy each is dear."""


class StreamOptions(Wire):
    """What a stream says beside its answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Sampled(Wire):
    """What whoever asks for a text may say of it."""

    model: ModelName
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Bias | None = None
    stop: Stop = None
    seed: Seed | None = None
    user: Caller | None = None
    coe: CoeBody = Field(default_factory=lambda: NOTHING_ASKED)

    @model_validator(mode="after")
    def _streams(self) -> _Sampled:
        if self.stream_options is not None and not self.stream:
            raise wrong("only a stream has any: set stream", at="stream_options")
        return self


class ChatBody(_Sampled):
    """Body of ``POST /v1/chat/completions``."""

    messages: Messages
    max_completion_tokens: Count | None = None
    tools: ToolsOrNone = None
    tool_choice: _Choice | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: FunctionsOrNone = None
    function_call: _Choice | dict[str, Any] | None = None
    response_format: FormatOrNone = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    reasoning_effort: _Effort | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    audio: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
    metadata: Metadata = None
    store: bool | None = None
    service_tier: Caller | None = None
    safety_identifier: Caller | None = None
    prompt_cache_key: Caller | None = None
    prompt_cache_retention: Caller | None = None
    prompt_cache_options: dict[str, Any] | None = None
    moderation: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ChatBody:
        check_conversation(self.messages)
        if self.top_logprobs is not None and not self.logprobs:
            raise wrong("only with logprobs: true", at="top_logprobs")
        return self


class CompletionBody(_Sampled):
    """Body of ``POST /v1/completions``: one prompt, asked as a user's message."""

    prompt: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=1)]
    )

    _one_text = field_validator("prompt", mode="wrap")(or_else("a list of one"))

    @property
    def text(self) -> str:
        """The prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


class EmbeddingBody(Wire):
    """Body of ``POST /v1/embeddings``."""

    model: ModelName
    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[
            list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MOST_TEXTS)
        ]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    user: Caller | None = None

    _all_texts = field_validator("input", mode="wrap")(or_else(f"a list of 1 to {MOST_TEXTS}"))

    @property
    def texts(self) -> list[str]:
        """What is to be embedded."""
        return [self.input] if isinstance(self.input, str) else self.input
