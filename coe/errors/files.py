"""What files hold that cannot be read or used."""

from __future__ import annotations

from coe.errors import CoeError


class ConfigError(CoeError):
    """A configuration is absent, malformed or inconsistent; the message says where."""


class WeightsError(CoeError):
    """Weights are absent, or are not the bytes that the manifest promises."""


class ArtefactError(CoeError):
    """A trained artefact is absent, altered or of another schema."""


class OutcomesError(CoeError):
    """An outcome or prompt table has wrong columns or values."""


class MeasurementsError(CoeError):
    """A table of measured requests has wrong columns or values, or too few rows to fit."""


class PlanError(CoeError):
    """A plan cannot be read, written, made or used."""


class SimulationError(CoeError):
    """What is asked for cannot be simulated, or a trace cannot be read."""
