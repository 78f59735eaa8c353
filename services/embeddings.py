"""Vectors for whoever asks: those of the embedder that the router reads prompts by."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError

from coe.core import estimated_tokens
from coe.embedders import EndpointSection
from coe.errors.callers import RequestError, UnknownExpertError
from coe.routers.embed import Embedder, Vectors
from coe.services.runtime import Runtime
from coe.services.wire.bodies import EmbeddingBody
from coe.services.wire.fields import complaint, unknown


def embedding_model(runtime: Runtime) -> str:
    """The ``model`` under which a gateway gives vectors: the endpoint's, or the embedder's name."""
    section = runtime.config.embedder
    return section.model if isinstance(section, EndpointSection) else _embedder(runtime).name


async def embeddings(runtime: Runtime, document: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to the body of ``POST /v1/embeddings``.

    Vectors have unit length, or are zero where nothing is known of a text. Tokens are estimated.

    Raises
    ------
    RequestError
        A field is wrong, or another length of vectors is asked for; ``param`` names it.
    UnknownExpertError
        ``model`` is not that of `embedding_model`.
    EmbeddingError
        The endpoint gave none.
    """
    if strange := [name for name in document if name not in EmbeddingBody.model_fields]:
        raise unknown(strange, frozenset())
    try:
        body = EmbeddingBody.model_validate(document)
    except ValidationError as error:
        raise complaint(error) from error
    model, embedder = embedding_model(runtime), _embedder(runtime)
    if body.model not in (model, embedder.name):
        raise UnknownExpertError(f"vectors are those of {model}, and of no other model")
    if body.dimensions not in (None, embedder.dim):
        raise RequestError(f"vectors have {embedder.dim} dimensions", "dimensions")
    # in a thread: an endpoint may take its time, and many texts do
    vectors = await asyncio.to_thread(embedder.embed, body.texts)
    n_tokens = sum(estimated_tokens(text) for text in body.texts)
    coded = body.encoding_format == "base64"
    return {
        "object": "list",
        "model": body.model,
        "data": [
            {"object": "embedding", "index": n, "embedding": _base64(v) if coded else v.tolist()}
            for n, v in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
    }


def _embedder(runtime: Runtime) -> Embedder:
    return runtime.embedder or runtime.engine.router.embedder


def _base64(vector: Vectors) -> str:
    """As OpenAI writes it: 32-bit floats, the least significant byte first."""
    return base64.b64encode(vector.astype(np.dtype("<f4")).tobytes()).decode()
