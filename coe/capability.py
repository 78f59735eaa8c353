"""What an expert can do beyond answering text with one text, and who can by default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

Capability = Literal[
    "tools",
    "json_object",
    "json_schema",
    "logprobs",
    "n",
    "seed",
    "stop",
    "images",
    "audio",
    "files",
]

EVERYTHING: Final[frozenset[Capability]] = frozenset(get_args(Capability))

_WRITING: Final = EVERYTHING - {"images", "audio", "files"}
_ENGINE: Final = _WRITING - {"tools"}

OF_KIND: Final[Mapping[str, frozenset[Capability]]] = {
    # small weights write a call as text, whatever is asked; vLLM refuses tools until its arguments
    # name a parser for them
    "embedded": _ENGINE,
    "vllm": _ENGINE,
    "http": _WRITING,
    # the same answer whatever the seed
    "replay": frozenset({"seed"}),
}
"""By kind of expert, what it is taken to be capable of where its section does not say."""
