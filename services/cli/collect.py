"""``coe collect``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coe.config import Config, RetrievalSection
from coe.retrieval import Retriever
from coe.routers.embed import load_default
from coe.routers.outcomes import Outcomes, read_prompts
from coe.services.cli.console import configuration, print_json, progress_bar, say, tell
from coe.services.collect import collect
from coe.services.draft import retriever_of
from coe.services.embedding import configured
from coe.services.fleet import running


def run(
    prompts_path: Path,
    out: Path,
    experts: Sequence[str] | None,
    concurrency: int,
    run_code: bool,
    index: Path | None,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Ask, score, write; then print what each expert scored.

    Raises
    ------
    ConfigError, OutcomesError, ArtefactError
        A file is wrong; or the index is absent or altered.
    """
    prompts = read_prompts(prompts_path)
    config = configuration(config_path)
    retriever = None if index is None else _retriever(config, index)
    remarks = asyncio.run(_collect(config, prompts, out, experts, concurrency, run_code, retriever))
    outcomes = Outcomes.read(out)
    n_scored = np.sum(~np.isnan(outcomes.scores), axis=0).tolist()
    means = np.nanmean(outcomes.scores, axis=0).tolist()
    if as_json:
        print_json(
            {
                "out": str(out),
                "n_prompts": len(outcomes.prompts),
                "n_scored": dict(zip(outcomes.expert_ids, n_scored, strict=True)),
                "mean_score": dict(zip(outcomes.expert_ids, means, strict=True)),
                "remarks": remarks,
            }
        )
        return
    for remark in remarks:
        say(remark)
    for name, mean, n in zip(outcomes.expert_ids, means, n_scored, strict=True):
        tell(f"{name}: mean score {mean:.3f} on {n} prompts")
    tell(f"wrote {out}")


async def _collect(
    config: Config,
    prompts: Sequence[Mapping[str, Any]],
    out: Path,
    experts: Sequence[str] | None,
    concurrency: int,
    run_code: bool,
    retriever: Retriever | None,
) -> list[str]:
    # what computes nothing has nothing to be trained on
    asked = experts or [expert.id for expert in config.computing]
    async with running(config, say, asked) as fleet:
        await fleet.settled()
        with progress_bar() as bar:
            # the second time only those for which passages are found
            total = len(prompts) * (1 if retriever is None else 2)
            tasks = {name: bar.add_task(name, total=total) for name in fleet.experts}
            return await collect(
                fleet,
                prompts,
                out,
                concurrency,
                run_code,
                lambda name: bar.advance(tasks[name]),
                retriever,
            )


def _retriever(config: Config, folder: Path) -> Retriever | None:
    """What retrieves from this index, by the settings of the configured section if there is one."""
    section = config.retrieval or RetrievalSection(index=folder)
    embedder = configured(config.embedder) or load_default()
    return retriever_of(section.model_copy(update={"index": folder}), embedder)
