"""A tenant's own expert beside the global ones: what serving keeps of a personal gate, numpy alone.

Global experts, a local expert and a gate between them (GE, LE, GN): the local expert and the gate
are the tenant's, trained on its own data where that data lies. Reconstruction, equations ours:
the gate is one linear model of what the tenant's expert scores, given the embedding of a prompt
and what the best global expert is expected to score on it, so that a few dozen prompts suffice.

`coe.routers.personal_training` fits it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from coe.errors.files import ArtefactError
from coe.routers.expectation import Expectation
from coe.routers.folder import MALFORMED, Form, read, write
from coe.routers.head import Assessment
from coe.routers.quality import Expected

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

FORM = Form("personal gate", 1, "personalise again", "personal")
_ARRAYS = "arrays.safetensors"
_LEAD = 1e-9  # by which the best global expert stays ahead of one whose gate declined


@dataclass(frozen=True, slots=True)
class Premise:
    """What a gate was trained for, and where it may be used.

    Parameters
    ----------
    tenant, expert_id : whose gate it is, and the tenant's own expert.
    rivals : the global experts that it was weighed against.
    node : where the gate and the expert are kept; ``None``: nobody said.
    embedder : name of the embedder whose vectors it reads.
    artefact_sha256 : of the manifest of the artefact whose expectations it reads.
    """

    tenant: str
    expert_id: str
    rivals: tuple[str, ...]
    node: str | None
    embedder: str
    artefact_sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class PersonalGate:
    """What to expect of a tenant's own expert, and of the global ones on the tenant's prompts.

    Parameters
    ----------
    level : in (-1, 1): how much better the global experts do on this tenant's prompts than they
        are expected to; see `levelled`.
    coef : (dim + 2,) of the own expert's quality: for the embedding, for the levelled quality of
        the best global expert, and for a constant 1.
    quality_se : standard error of that quality on a prompt like those of training.
    mean_tokens, cautious_tokens : length of the own expert's answers.
    declined : own expert and gate did not beat the global router on held-out prompts, beyond
        noise: the own expert is expected to score less than the best global one on every prompt,
        and is chosen for its price, or when ceilings leave nobody else.
    training : counts and figures; neither prompts nor answers.
    """

    premise: Premise
    level: float
    coef: Singles
    quality_se: float
    mean_tokens: float
    cautious_tokens: float
    declined: bool
    training: Mapping[str, Any] = field(default_factory=dict)

    def quality(self, X: Singles, strength: Floats) -> Floats:
        """(n_prompts,) expected score of the own expert, in [0, 1].

        Parameters
        ----------
        X : (n_prompts, dim) embeddings.
        strength : (n_prompts,) quality of the best rival, levelled.
        """
        linear = (X @ self.coef[:-2]).astype(np.float64)
        found: Floats = np.clip(linear + self.coef[-2] * strength + self.coef[-1], 0.0, 1.0)
        if self.declined:
            return np.clip(np.minimum(found, strength - _LEAD), 0.0, 1.0)
        return found

    def refine(self, expected: Expected, expert_ids: tuple[str, ...], X: Singles) -> Expected:
        """``expected`` as it is for this tenant: global experts levelled, the own one added.

        Parameters
        ----------
        expert_ids : names of the columns of ``expected``. The own expert's column is replaced, or
            becomes the last one.
        X : (n_prompts, dim) embeddings.
        """
        quality = levelled(expected.quality, self.level)
        rivals = [expert_ids.index(name) for name in self.premise.rivals]
        own = self.quality(X, quality[:, rivals].max(axis=1))
        known = self.premise.expert_id in expert_ids
        column = expert_ids.index(self.premise.expert_id) if known else len(expert_ids)

        def placed(array: Floats, values: Floats | float) -> Floats:
            wide = array.copy() if known else np.pad(array, ((0, 0), (0, 1)))
            wide[:, column] = values
            return wide

        return Expected(
            quality=placed(quality, own),
            quality_se=placed(expected.quality_se, self.quality_se),
            mean_tokens=placed(expected.mean_tokens, self.mean_tokens),
            cautious_tokens=placed(expected.cautious_tokens, self.cautious_tokens),
        )

    def save(self, folder: Path) -> None:
        """Write the gate; ``folder`` is replaced as a whole or not at all, and no older than it.

        Raises
        ------
        ArtefactError
            ``folder`` exists and is not a personal gate, so it is left alone; or it cannot be
            written.
        """
        manifest = {
            **asdict(self.premise),
            "level": self.level,
            "quality_se": self.quality_se,
            "mean_tokens": self.mean_tokens,
            "cautious_tokens": self.cautious_tokens,
            "declined": self.declined,
            "training": dict(self.training),
        }
        write(folder, FORM, manifest, {_ARRAYS: save_tensors({"coef": self.coef})})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The gate in ``folder``, every file checked against the manifest.

        Raises
        ------
        ArtefactError
            Something is absent, altered, malformed, not a part of it, or of another schema.
        """
        manifest, files = read(folder, FORM, (_ARRAYS,))
        try:
            return cls._of(manifest, load_tensors(files[_ARRAYS]))
        except MALFORMED as error:
            raise ArtefactError(f"{folder}: malformed personal gate: {error!r}") from error

    @classmethod
    def _of(cls, manifest: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Self:
        names = ("tenant", "expert_id", "node", "embedder", "artefact_sha256")
        premise = Premise(
            **{name: manifest[name] for name in names}, rivals=tuple(manifest["rivals"])
        )
        figures = ("level", "quality_se", "mean_tokens", "cautious_tokens")
        values = {name: float(manifest[name]) for name in figures}
        coef = tensors["coef"]
        if coef.ndim != 1 or coef.size < 2 or not np.isfinite([*coef, *values.values()]).all():
            raise ValueError("coef and figures must be finite numbers")
        if not -1 < values["level"] < 1:
            raise ValueError(f"level is {values['level']}")
        if not premise.rivals or premise.expert_id in premise.rivals:
            raise ValueError(f"rivals are {premise.rivals}")
        return cls(
            premise=premise,
            coef=coef.astype(np.float32),
            declined=bool(manifest["declined"]),
            training=manifest["training"],
            **values,
        )

    def check(self, tenant: str, expert_id: str, embedder: str, dim: int, artefact: str) -> None:
        """Nothing, where the gate may be used: with what it was trained with.

        Parameters
        ----------
        artefact : sha256 of the artefact's manifest.

        Raises
        ------
        ArtefactError
            It was trained for another tenant or expert, or with another embedder or artefact.
        """
        mine = self.premise
        pairs = {
            "tenant": (mine.tenant, tenant),
            "expert": (mine.expert_id, expert_id),
            "embedder": (mine.embedder, embedder),
            "length of vectors": (self.coef.size - 2, dim),
            "artefact": (mine.artefact_sha256, artefact),
        }
        for noun, (trained, given) in pairs.items():
            if trained != given:
                raise ArtefactError(
                    f"the personal gate of tenant {tenant!r} was trained with {noun} {trained!r}, "
                    f"not {given!r}: train it again with `coe personalise`"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalExpectation(Expectation):
    """What is expected of every expert on the prompts of one tenant, its own expert included."""

    gate: PersonalGate

    @classmethod
    def of_tenant(cls, everyone: Expectation, gate: PersonalGate) -> PersonalExpectation:
        """What ``everyone`` expects, refined by a tenant's gate.

        Raises
        ------
        ArtefactError
            A rival of the own expert is not among the experts of ``everyone``.
        """
        strangers = set(gate.premise.rivals) - set(everyone.expert_ids)
        if strangers:
            raise ArtefactError(
                f"the personal gate of tenant {gate.premise.tenant!r} knows experts that the "
                f"artefact does not: {', '.join(sorted(strangers))}"
            )
        return cls(
            table=everyone.table,
            residual=everyone.residual,
            lengths=everyone.lengths,
            incumbent=everyone.incumbent,
            gate=gate,
        )

    @property
    def expert_ids(self) -> tuple[str, ...]:
        """Names of the columns of what is expected: the table's, and the own expert."""
        known, own = self.table.expert_ids, self.gate.premise.expert_id
        return known if own in known else (*known, own)

    def of(self, X: NDArray[np.float32], assessment: Assessment) -> Expected:
        """As `Expectation.of`, for this tenant."""
        # not super(): a dataclass with slots is made anew
        found = Expectation.of(self, X, assessment)
        return self.gate.refine(found, self.table.expert_ids, X)


def levelled(quality: Floats, level: float) -> Floats:
    """Qualities in [0, 1], a share ``level`` of the way nearer to 1, or, where negative, to 0.

    Their order is kept. Any shape.
    """
    if level >= 0:
        return quality + level * (1.0 - quality)
    return quality * (1.0 + level)
