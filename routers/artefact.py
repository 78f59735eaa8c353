"""A trained router on disk: a folder with ``manifest.json`` and arrays in safetensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from coe.core import ExpertSpec
from coe.device import DeviceProfile
from coe.errors.files import ArtefactError
from coe.routers.embed import Embedder
from coe.routers.expectation import Expectation
from coe.routers.folder import MALFORMED, Form, read, write
from coe.routers.gate import RetrievalGate, column_names
from coe.routers.head import CategoryHead
from coe.routers.modes import LearnedModes
from coe.routers.quality import QualityTable
from coe.routers.residual import LengthResidual, QualityResidual
from coe.routers.soundness import check_sound

SCHEMA = 2
FORM = Form("router artefact", SCHEMA, "train it again")
_ARRAYS = "arrays.safetensors"
_GATE = "gate."
_MODES = "modes."


@dataclass(frozen=True, slots=True)
class Artefact:
    """Everything that training learned.

    Parameters
    ----------
    embedder : name of the embedder whose vectors the category router was trained on.
    category : the fitted category router, frozen.
    expectation : quality and answer length of every expert; the categories of its table are
        the router's, then "general".
    experts : the experts as they were configured when their outcomes were collected.
    canaries : prompts with the category they must get; asked before the artefact goes live.
    training : provenance: hash of the outcomes, seed, counts, versions.
    metrics : what `coe train` measured.
    gate : what retrieval does to answers; ``None``: no outcomes said so.
    modes : what answers that several experts make are worth; ``None``: no outcomes said so.
    """

    embedder: str
    category: CategoryHead
    expectation: Expectation
    experts: tuple[ExpertSpec, ...]
    canaries: tuple[tuple[str, str], ...]
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]
    gate: RetrievalGate | None = None
    modes: LearnedModes | None = None

    def check_canaries(self, embedder: Embedder) -> None:
        """Ask the canary prompts.

        Raises
        ------
        ArtefactError
            The embedder is not the one of training, or a canary gets another category.
        """
        if embedder.name != self.embedder:
            raise ArtefactError(
                f"the artefact was trained on embedder {self.embedder!r}, not {embedder.name!r}"
            )
        if not self.canaries:
            return
        found = self.category.predict(embedder.embed([prompt for prompt, _ in self.canaries]))
        for (prompt, expected), name in zip(self.canaries, found, strict=True):
            if name != expected:
                raise ArtefactError(
                    f"canary prompt {prompt[:60]!r} gets category {str(name)!r}, not {expected!r}"
                )

    def save(self, folder: Path, embedder: Embedder | None = None) -> None:
        """Write the artefact; ``folder`` is replaced as a whole or not at all.

        Parameters
        ----------
        embedder : when given, what was written is read back and must answer its canaries
            before it takes the place of an older artefact.

        Raises
        ------
        ArtefactError
            ``folder`` exists and is not an artefact, so it is not overwritten; it cannot be
            written; or a canary failed.
        TypeError, ValueError
            Training or metrics cannot be said in JSON.
        """

        def check(staging: Path) -> None:
            if embedder is not None:
                Artefact.load(staging).check_canaries(embedder)

        write(folder, FORM, self._manifest(), {_ARRAYS: save_tensors(self._tensors())}, check)

    @classmethod
    def load(cls, folder: Path) -> Artefact:
        """The artefact in ``folder``, every file checked against the manifest.

        Raises
        ------
        ArtefactError
            Something is absent, altered, malformed, not a part of it, or of another schema.
        """
        manifest, files = read(folder, FORM, (_ARRAYS,))
        try:
            return cls._of(manifest, load_tensors(files[_ARRAYS]))
        except MALFORMED as error:
            raise ArtefactError(f"{folder}: malformed artefact: {error!r}") from error

    def _tensors(self) -> dict[str, NDArray[Any]]:
        table, residual, lengths = (
            self.expectation.table,
            self.expectation.residual,
            self.expectation.lengths,
        )
        tensors: dict[str, NDArray[Any]] = {
            "category.coef": self.category.coef_.astype(np.float32),
            "category.intercept": self.category.intercept_.astype(np.float32),
            "category.points": self.category.points_.astype(np.float16),
            "quality.quality": table.quality,
            "quality.quality_se": table.quality_se,
            "quality.mean_tokens": table.mean_tokens,
            "quality.cautious_tokens": table.cautious_tokens,
        }
        if self.category.codes_ is not None:
            tensors["category.codes"] = self.category.codes_
        if residual is not None:
            tensors |= {
                "residual.coef": residual.coef,
                "residual.noise": residual.noise,
                "residual.axes": residual.axes,
                "residual.spectrum": residual.spectrum,
                "residual.penalty": np.array([residual.penalty]),
            }
        if lengths is not None:
            tensors |= {
                "lengths.coef": lengths.coef,
                "lengths.mean_scale": lengths.mean_scale,
                "lengths.cautious_scale": lengths.cautious_scale,
            }
        for prefix, part in ((_GATE, self.gate), (_MODES, self.modes)):
            if part is not None:
                tensors |= {prefix + name: array for name, array in part.to_arrays().items()}
        # safetensors writes an array's memory as it lies, whatever its order
        return {name: np.ascontiguousarray(array) for name, array in tensors.items()}

    def _manifest(self) -> dict[str, Any]:
        modes = {} if self.modes is None else {"modes": self.modes.document()}
        return modes | {
            "embedder": self.embedder,
            "categories": list(self.expectation.categories),
            "incumbent": self.expectation.incumbent,
            "category_router": {
                "n_neighbors": self.category.n_neighbors,
                "entropy_threshold": _or_null(self.category.entropy_threshold),
                "distance_threshold": _or_null(self.category.distance_threshold),
            },
            "experts": [_spec_row(spec) for spec in self.experts],
            "canaries": [list(pair) for pair in self.canaries],
            "training": dict(self.training),
            "metrics": dict(self.metrics),
        }

    @classmethod
    def _of(cls, manifest: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Artefact:
        experts = tuple(_spec(row) for row in manifest["experts"])
        categories, expert_ids = tuple(manifest["categories"]), tuple(spec.id for spec in experts)
        own = {k: v for k, v in tensors.items() if not k.startswith((_GATE, _MODES))}
        check_sound(own, {"categories": len(categories), "experts": len(expert_ids)})
        return cls(
            embedder=manifest["embedder"],
            category=_head(manifest["category_router"], categories[:-1], tensors),
            expectation=_expectation(categories, expert_ids, manifest["incumbent"], tensors),
            experts=experts,
            canaries=tuple((prompt, name) for prompt, name in manifest["canaries"]),
            training=manifest["training"],
            metrics=manifest["metrics"],
            gate=_gate(tensors),
            modes=_modes(manifest, tensors, categories, expert_ids),
        )


def _expectation(
    categories: tuple[str, ...],
    expert_ids: tuple[str, ...],
    incumbent: int | None,
    tensors: Mapping[str, NDArray[Any]],
) -> Expectation:
    table = QualityTable(
        categories=categories,
        expert_ids=expert_ids,
        quality=tensors["quality.quality"],
        quality_se=tensors["quality.quality_se"],
        mean_tokens=tensors["quality.mean_tokens"],
        cautious_tokens=tensors["quality.cautious_tokens"],
    )
    if incumbent is not None and not 0 <= incumbent < len(expert_ids):
        raise ValueError(f"incumbent is {incumbent}")
    residual = lengths = None
    if "residual.coef" in tensors:
        residual = QualityResidual(
            coef=tensors["residual.coef"],
            noise=tensors["residual.noise"],
            axes=tensors["residual.axes"],
            spectrum=tensors["residual.spectrum"],
            penalty=float(tensors["residual.penalty"][0]),
        )
    if "lengths.coef" in tensors:
        lengths = LengthResidual(
            coef=tensors["lengths.coef"],
            mean_scale=tensors["lengths.mean_scale"],
            cautious_scale=tensors["lengths.cautious_scale"],
        )
    return Expectation(table, residual, lengths, incumbent)


def _gate(tensors: Mapping[str, NDArray[Any]]) -> RetrievalGate | None:
    arrays = _under(_GATE, tensors)
    if not arrays:
        return None
    gate = RetrievalGate.from_arrays(arrays)
    expected = len(column_names(tensors["category.coef"].shape[1]))
    if gate.n_features != expected:
        raise ValueError(f"the retrieval gate has {gate.n_features} features, not {expected}")
    return gate


def _modes(
    manifest: Mapping[str, Any],
    tensors: Mapping[str, NDArray[Any]],
    categories: tuple[str, ...],
    expert_ids: tuple[str, ...],
) -> LearnedModes | None:
    arrays = _under(_MODES, tensors)
    if not arrays and "modes" not in manifest:
        return None
    return LearnedModes.read(manifest["modes"], arrays, categories, expert_ids)


def _under(prefix: str, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The tensors of one part, by their names within it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _head(
    thresholds: Mapping[str, Any], classes: Sequence[str], tensors: Mapping[str, NDArray[Any]]
) -> CategoryHead:
    return CategoryHead(
        classes_=np.array(classes),
        coef_=tensors["category.coef"].astype(np.float64),
        intercept_=tensors["category.intercept"].astype(np.float64),
        points_=tensors["category.points"].astype(np.float32),
        n_neighbors=thresholds["n_neighbors"],
        entropy_threshold=_or_infinity(thresholds["entropy_threshold"]),
        distance_threshold=_or_infinity(thresholds["distance_threshold"]),
        codes_=tensors.get("category.codes"),
    )


def _spec_row(spec: ExpertSpec) -> dict[str, Any]:
    """A spec as JSON, but for what a request may ask of the expert: that is not learned."""
    row = asdict(spec)
    return {name: value for name, value in row.items() if name not in ("capabilities", "extras")}


def _spec(row: Mapping[str, Any]) -> ExpertSpec:
    return ExpertSpec(**{**row, "profile": DeviceProfile(**row["profile"])})


def _or_null(threshold: float) -> float | None:
    """A threshold as strict JSON: infinity becomes null."""
    return None if threshold == np.inf else threshold


def _or_infinity(threshold: float | None) -> float:
    return np.inf if threshold is None else threshold
