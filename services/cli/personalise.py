"""``coe personalise``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coe.config import Config
from coe.errors.files import ConfigError
from coe.routers.artefact import Artefact
from coe.routers.embed import load_for
from coe.routers.folder import ensure_replaceable, identity
from coe.routers.outcomes import Outcomes
from coe.routers.personal import FORM, PersonalGate, Premise
from coe.routers.personal_training import personalise, rivals_in
from coe.services.cli.console import configuration, notes, print_json, say, tell
from coe.services.embedding import check_local, configured
from coe.services.personal import ensure_kept_together
from coe.tenants import TENANT


@dataclass(frozen=True, slots=True)
class Wish:
    """Whose own expert is to get a gate, and the node where that is kept."""

    tenant: str
    expert_id: str
    node: str | None


def run(
    wish: Wish,
    outcomes_path: Path,
    out: Path | None,
    artefact_path: Path | None,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Train, save, and print what was measured on held-out prompts.

    Raises
    ------
    ConfigError, OutcomesError, ArtefactError
        A file or a name is wrong, the expert is not where the gate is to be kept, the embedder may
        not see a tenant's prompts, or ``out`` holds something that is not a personal gate.
    EmbeddingError
        The configured endpoint gives no vectors.
    """
    config = configuration(config_path, quiet=True)
    if not re.fullmatch(TENANT, wish.tenant):
        raise ConfigError(f"--tenant {wish.tenant!r}: at most 64 letters, digits, '.', '_' and '-'")
    ensure_kept_together(config, wish.expert_id, wish.node)
    check_local(config.embedder, {}, config.tenants)
    target = _target(out, config, wish.tenant)
    ensure_replaceable(target, FORM)
    outcomes = Outcomes.read(outcomes_path)
    folder = artefact_path or config.artefact
    artefact = Artefact.load(folder)
    premise = Premise(
        tenant=wish.tenant,
        expert_id=wish.expert_id,
        rivals=rivals_in(outcomes, _everybodys(config, artefact, wish.expert_id)),
        node=wish.node,
        embedder=artefact.embedder,
        artefact_sha256=identity(folder),
    )
    with notes.status("learning"):
        embedder = configured(config.embedder) or load_for(artefact.embedder)
        artefact.check_canaries(embedder)
        gate = personalise(outcomes, artefact, embedder, premise)
    gate.save(target)
    if as_json:
        said = {"out": str(target), "tenant": wish.tenant, "expert": wish.expert_id}
        print_json({**said, "declined": gate.declined, "training": gate.training})
        return
    _print(gate)
    tell(f"wrote {target}")
    if wish.tenant not in config.tenants:
        section = f"{{{wish.tenant}: {{expert: {wish.expert_id}, gate: {target}}}}}"
        say(f"to use it, coe.yaml needs tenants: {section}")


def _target(out: Path | None, config: Config, tenant: str) -> Path:
    section = config.tenants.get(tenant)
    return out or (section and section.gate) or Path(f"{tenant}.gate")


def _everybodys(config: Config, artefact: Artefact, own: str) -> list[str]:
    """The artefact's experts that no tenant has to itself."""
    private = {own, *(tenant.expert for tenant in config.tenants.values())}
    return [name for name in artefact.expectation.expert_ids if name not in private]


def _print(gate: PersonalGate) -> None:
    own, training = gate.premise.expert_id, gate.training
    gain = f"{training['gain']:+.3f} (standard error {training['gain_se']:.3f})"
    tell(
        f"learned from {training['n_prompts']} prompts, "
        f"{training['n_compared']} of them scored for both"
    )
    tell(f"  gain over the global router on held-out prompts: {gain}")
    if gate.declined:
        tell(f"  not beyond noise: {own} is expected to beat it on no prompt")
    _print_scores("held-out prompts", own, training["held_out"])
    if "test" in training:
        _print_scores("prompts of split test", own, training["test"])


def _print_scores(which: str, own: str, figures: Mapping[str, Any]) -> None:
    if not figures["n_prompts"]:
        return
    tell(f"scores on {figures['n_prompts']} {which}:")
    arms = {
        "never": "the global router alone",
        "always": f"{own} alone",
        "gate": f"the gate, which asks {own} on a share of {figures['share_own']:.2f}",
        "oracle": "the better of both on every prompt",
    }
    for name, said in arms.items():
        tell(f"  {said}: {figures[f'score_{name}']:.3f}")
