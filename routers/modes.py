"""What ways to answer with several experts are worth, as learned from recorded answers."""

from __future__ import annotations

from dataclasses import dataclass

from coe.mode import Mode
from coe.routers.confidence import Floats


@dataclass(frozen=True, slots=True)
class ModeTable:
    """What each mode is worth in each category, and what of its experts it uses.

    Parameters
    ----------
    categories : (n_categories,) the last is the row over all prompts.
    expert_ids : (n_experts,) some of whom may be in no mode.
    modes : (n_modes,) each once; every member of one is there as a single too.
    quality, quality_se : (n_categories, n_modes) mean score in [0, 1], and its standard error.
    usage : (n_categories, n_modes, n_experts) tokens each expert writes under the mode over those
        it writes if asked every time; 0 for who is never asked. Prompts on which a cascade goes on
        have longer answers, so a share of tokens may exceed the share of prompts. It multiplies
        joules and dollars.
    reach : (n_categories, n_modes, n_stages) share of prompts that reach each stage: the mean
        latency is the sum over stages of reach times the slowest member.
    """

    categories: tuple[str, ...]
    expert_ids: tuple[str, ...]
    modes: tuple[Mode, ...]
    quality: Floats
    quality_se: Floats
    usage: Floats
    reach: Floats
