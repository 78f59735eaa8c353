"""``coe train``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coe.routers.artefact import Artefact
from coe.routers.embed import load_default, meaning_features
from coe.routers.outcomes import Outcomes
from coe.routers.retrieve import Index
from coe.routers.train import train
from coe.services.cli.console import configuration, notes, print_json, say, tell
from coe.services.embedding import configured

_SHOWN = {
    "best_single": "best single",
    "vote_of_best_three": "vote of the best three",
    "best_at_its_joules": "best mode at the joules of the best single",
}


def run(
    outcomes_path: Path, out: Path, index: Path | None, config_path: Path | None, as_json: bool
) -> None:
    """Train, save, and print what was measured on the dev split.

    Raises
    ------
    ConfigError, OutcomesError, ArtefactError
        A file is wrong, or ``out`` holds something that is not an artefact.
    EmbeddingError
        The configured endpoint gives no vectors.
    """
    config = configuration(config_path, quiet=True)
    specs = config.specs
    outcomes = Outcomes.read(outcomes_path, answers=True)
    for name in outcomes.expert_ids:
        if name not in specs:
            say(f"expert {name} is not configured: it is trained, its speed and power are unknown")
    embedder = configured(config.embedder)
    if embedder is None:
        embedder = load_default()
    with notes.status("reading") as status:
        features = meaning_features(embedder.name)
        found = None if index is None else Index.load(index, embedder)
        artefact = train(outcomes, embedder, specs, features, index=found, progress=status.update)
    artefact.save(out, embedder)
    if as_json:
        print_json({"out": str(out), "training": artefact.training, "metrics": artefact.metrics})
        return
    _print(artefact)
    tell(f"wrote {out}")


def _print(artefact: Artefact) -> None:
    held_out, figures = artefact.training["held_out"], artefact.metrics
    tell(
        f"trained on {artefact.training['n_train']} prompts: routed by {held_out['routed_by']}, "
        f"learned by {held_out['estimator']}"
    )
    gain = f"{held_out['gain']:+.3f} (standard error {held_out['gain_se']:.3f})"
    tell(f"  gain over {held_out['best_single']} on held-out training prompts: {gain}")
    if held_out["declined"]:
        tell(f"  not beyond noise: nobody is expected to beat {held_out['best_single']}")
    if modes := artefact.training.get("modes"):
        _print_modes(modes)
    if figures.get("n_prompts"):
        _print_measured(figures)
    if gate := figures.get("gate"):
        tell(f"  retrieval gate, measured on {gate['n_pairs']} answers with and without passages")
        if gate["n_pairs"]:
            for name in ("never", "always", "gate", "oracle"):
                tell(f"  score retrieving by {name}: {gate[f'score_{name}']:.3f}")
            tell(f"  share retrieved by the gate: {gate['share_retrieved']:.3f}")


def _print_modes(learned: Mapping[str, Any]) -> None:
    if not learned["n_modes"]:
        n = learned["n_answered"]
        tell(f"  answers of several experts to {n} prompts: too few to learn from together")
        return
    tell(
        f"  {learned['n_modes']} modes of {', '.join(learned['expert_ids'])}, played on "
        f"{learned['n_prompts']} prompts that all of them answered; questions seem to have "
        f"{learned['n_options']:.1f} options"
    )


def _print_measured(figures: Mapping[str, Any]) -> None:
    tell(f"measured on {figures['n_prompts']} dev prompts:")
    if figures["category_accuracy"] is not None:
        tell(f"  category accuracy {figures['category_accuracy']:.3f}")
    tell(f"  coverage          {figures['coverage']:.3f}")
    tell(f"  calibration error {figures['calibration_error']:.3f}")
    for name, score in figures["score_single"].items():
        tell(f"  score of {name} alone: {score:.3f}")
    tell(f"  score routed to the best expected expert: {figures['score_routed']:.3f}")
    tell(f"  score of the best expert of each prompt (oracle): {figures['score_oracle']:.3f}")
    if modes := figures.get("modes"):
        tell(f"measured on {modes['n_prompts']} dev prompts that experts of modes answered:")
        tell(f"  calibration error of the confidence {modes['calibration_error']:.3f}")
        for key, said in _SHOWN.items():
            if found := modes.get(key):
                energy_j = found["energy_j"]
                joules = "" if energy_j is None else f", {energy_j:.4g} J"
                tell(f"  {said}, {found['name']}: score {found['score']:.3f}{joules}")
