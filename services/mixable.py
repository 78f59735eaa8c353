"""Which experts of a configuration can write an answer together once they serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from coe.config import Config
from coe.core import ExpertSpec
from coe.kinds import EmbeddedSection, ExpertSection


def served(expert: ExpertSection, config: Config) -> ExpertSpec:
    """What is known of an expert once it serves: copies, and who takes turns, are not mixed."""
    spec = config.spec(expert)
    if config.on_fleet(expert) or config.on_demand is not None:
        return replace(spec, vocabulary=None)
    return spec


def vocabularies(config: Config) -> Mapping[str, tuple[list[str], list[str]]]:
    """By vocabulary that experts state, who can be mixed, and who cannot."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for expert in config.experts:
        if isinstance(expert, EmbeddedSection) and expert.vocabulary is not None:
            mixed, others = found.setdefault(expert.vocabulary, ([], []))
            (mixed if served(expert, config).vocabulary else others).append(expert.id)
    return found
