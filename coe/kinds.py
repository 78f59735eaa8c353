"""The kinds of experts in ``coe.yaml``: those that compute, each a section with its fields."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from coe.addresses import Reach, reach_of
from coe.capability import Capability
from coe.fleet import ReplicasSection
from coe.free import FreeSection, null_is_a_word
from coe.yamlfile import Name, NonNegative, Positive, Section, Url, wrong_field


class _ExpertSection(Section):
    id: Name
    device: str
    params_b: NonNegative = 0.0
    context_tokens: Annotated[int, Field(gt=0)] = 4096
    slots: Annotated[int, Field(gt=0)] = 1
    limit: Literal["auto", "adaptive", "none"] = "auto"
    hedge: bool = False
    answer_tokens: Annotated[int, Field(gt=0)] | None = None
    usd_per_mtok_in: NonNegative = 0.0
    usd_per_mtok_out: NonNegative = 0.0
    memory_gb: NonNegative = 0.0
    node: str | None = None
    resources: dict[Name, NonNegative] = Field(default={})
    replicas: ReplicasSection = ReplicasSection()
    first_token_timeout_s: Positive = 60.0
    idle_timeout_s: Positive = 30.0
    answer_timeout_s: Positive = 600.0
    shared: bool = False
    capabilities: list[Capability] | None = None
    extras: list[Annotated[str, Field(pattern=r"^\w{1,64}$")]] = Field(default=[])


class EmbeddedSection(_ExpertSection):
    """An expert that runs in a llama.cpp process on this machine.

    ``vocabulary`` names what it shares with others, so that they can write an answer together.
    """

    kind: Literal["embedded"]
    weights: str
    threads: Annotated[int, Field(gt=0)] | None = None
    repeat_penalty: Positive = 1.0
    vocabulary: Name | None = None
    logprobs: bool = True


class VllmSection(_ExpertSection):
    """An expert that runs in a vLLM process on this machine.

    ``python`` is the interpreter of the environment that holds vLLM; ``None``: this one.
    """

    kind: Literal["vllm"]
    weights: Annotated[str, Field(min_length=1)]
    python: Path | None = None
    arguments: list[str] = Field(default=[])
    environment: dict[str, str] = Field(default={})
    logprobs: bool = False
    start_timeout_s: Positive = 600.0


class HttpSection(_ExpertSection):
    """An expert behind any OpenAI-compatible server."""

    kind: Literal["http"]
    base_url: Url
    upstream_model: str | None = None
    stream_usage: bool = True
    logprobs: bool = False
    api_key_env: str | None = None
    allow_loopback: bool | None = None
    allow_private: bool | None = None
    ca: Path | None = None
    connect_timeout_s: Positive = 1.0
    first_token_timeout_s: Positive = 30.0
    max_answer_bytes: Annotated[int, Field(gt=0)] = 16 * 1024 * 1024

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        try:
            reach_of(self.base_url, self.allow_loopback, self.allow_private)
        except ValueError as error:
            raise wrong_field(f"ssrf_blocked: {error}", ("base_url",)) from error
        if self.ca is not None and not self.base_url.startswith("https://"):
            raise wrong_field("is for https only: nobody proves anything over http", ("ca",))
        return self

    @property
    def reach(self) -> Reach:
        """What it may be connected to by."""
        return reach_of(self.base_url, self.allow_loopback, self.allow_private)


class ReplaySection(_ExpertSection):
    """An expert that repeats recorded answers at the pace of its device profile."""

    kind: Literal["replay"]
    recording: Path
    recorded_as: str | None = None
    time_scale: NonNegative = 1.0


ExpertSection = Annotated[
    EmbeddedSection | VllmSection | HttpSection | ReplaySection, Field(discriminator="kind")
]
AnyExpert = Annotated[
    ExpertSection | FreeSection, Field(discriminator="kind"), BeforeValidator(null_is_a_word)
]
