"""The embedder in ``coe.yaml``: one of those that ship, or an endpoint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from coe.addresses import reach_of
from coe.yamlfile import Positive, Section, Url


class LocalEmbedderSection(Section):
    """An embedder that needs nothing but this package; see `coe.routers.embed`."""

    kind: Literal["default", "static", "lexical"]


class EndpointSection(Section):
    """An embedder behind any OpenAI-compatible ``/embeddings``.

    ``local``: what is sent there stays on machines that policies with ``local_only`` trust.
    """

    kind: Literal["endpoint"]
    base_url: Url
    model: Annotated[str, Field(pattern=r"^\S{1,200}$")]
    api_key_env: str | None = None
    dim: Annotated[int, Field(gt=0)] | None = None
    timeout_s: Positive = 5.0
    max_chars: Annotated[int, Field(gt=0)] = 2000
    local: bool = False

    @field_validator("base_url")
    @classmethod
    def _reachable(cls, url: str) -> str:
        try:
            reach_of(url)
        except ValueError as error:
            raise ValueError(f"ssrf_blocked: {error}") from error
        return url


EmbedderSection = Annotated[LocalEmbedderSection | EndpointSection, Field(discriminator="kind")]
