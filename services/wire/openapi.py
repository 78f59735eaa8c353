"""The interface as an OpenAPI document, made of the models that check the bodies."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import coe
from coe.access.rights import PUBLIC
from coe.services.wire.bodies import ChatBody, CompletionBody, EmbeddingBody

_REF: Final = "#/components/schemas/{model}"
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
# by path: what is posted, whether it may be streamed, and what comes back
_POSTED: Final[Mapping[str, tuple[type[BaseModel], bool, str]]] = {
    "/v1/chat/completions": (ChatBody, True, "An answer, whole or streamed."),
    "/v1/completions": (CompletionBody, True, "An answer to a prompt, whole or streamed."),
    "/v1/embeddings": (EmbeddingBody, False, "Vectors of texts."),
    "/v1/route": (ChatBody, False, "The decision on a chat, without an answer."),
}
_READ: Final[Mapping[str, str]] = {
    "/v1/models": "What model may be.",
    "/v1/models/{name}": "One of them.",
    "/v1/decisions/{decision_id}": "A kept decision, with its receipt once there is one.",
    "/healthz": "The process is up.",
    "/readyz": "Whether an expert can answer.",
    "/openapi.json": "This document.",
}
_OBJECT: Final = {"application/json": {"schema": {"type": "object"}}}


def openapi_document(extras: Collection[str], keyed: bool = False) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a gateway's interface, its operator's routes left out.

    A body that it permits may still be refused: for what no schema says, or by who there is to
    answer.

    Parameters
    ----------
    extras : fields beyond OpenAI's interface that some expert takes.
    keyed : whether callers must show a key.
    """
    _, schema = models_json_schema(
        [(ChatBody, "validation"), (CompletionBody, "validation"), (EmbeddingBody, "validation")],
        ref_template=_REF,
    )
    schemas = {**schema["$defs"], "Error": _ERROR}
    for model in (ChatBody, CompletionBody):
        schemas[model.__name__]["properties"] |= {name: {} for name in sorted(extras)}
    paths: dict[str, Any] = {path: {"get": _read(path, said)} for path, said in _READ.items()}
    paths |= {path: {"post": _posted(*about)} for path, about in _POSTED.items()}
    paths["/metrics"] = {"get": _answers("Prometheus metrics.", {"text/plain": {}})}
    key = {"key": {"type": "http", "scheme": "bearer"}}
    secured: dict[str, Any] = {"security": [{"key": []}]} if keyed else {}
    for path in PUBLIC & paths.keys() if keyed else ():
        paths[path]["get"]["security"] = []
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "coe",
            "version": coe.__version__,
            "summary": "Several experts, one API.",
        },
        "paths": paths,
        "components": {"schemas": schemas, **({"securitySchemes": key} if keyed else {})},
        **secured,
    }


def _posted(model: type[BaseModel], streamed: bool, said: str) -> dict[str, Any]:
    body = {"schema": {"$ref": _REF.format(model=model.__name__)}}
    stream: dict[str, Any] = {"text/event-stream": {}} if streamed else {}
    asked = {"required": True, "content": {"application/json": body}}
    return {"requestBody": asked, **_answers(said, {**_OBJECT, **stream})}


def _read(path: str, said: str) -> dict[str, Any]:
    _, opened, rest = path.partition("{")
    name = rest.removesuffix("}")
    where = {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    return {**({"parameters": [where]} if opened else {}), **_answers(said, _OBJECT)}


def _answers(said: str, content: Mapping[str, Any]) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}}
    refused = {"description": "Refused.", "content": error}
    failed = {"description": "Nobody could answer.", "content": {**error, **_OBJECT}}
    well = {"description": said, "content": dict(content)}
    return {"summary": said, "responses": {"200": well, "4XX": refused, "5XX": failed}}
