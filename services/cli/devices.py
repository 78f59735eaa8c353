"""``coe devices list | fit``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from coe.config import shipped_profiles
from coe.device import DeviceProfile, Scope
from coe.device_fit import FitErrors, Measurements, fit, held_out_errors
from coe.errors.files import MeasurementsError
from coe.profiles import ShippedSection
from coe.services.cli.console import print_json, say, tell
from coe.services.measurements import read_measurements

_PROMPT_TOKENS = 256
_N_FIGURES = 4
_DIGITS = 4
_POOR = 0.2


def show(as_json: bool) -> None:
    """List the profiles that ship.

    Raises
    ------
    ConfigError
        The file that holds them is damaged.
    """
    sections = shipped_profiles()
    profiles = {name: section.profile(name) for name, section in sections.items()}
    if as_json:
        print_json([s.model_dump() | _figures(profiles[name]) for name, s in sections.items()])
        return
    headings = ("name", "tokens/s", "J/token", f"TTFT {_PROMPT_TOKENS}", "streams", "scope", "idle")
    table: list[tuple[str, ...]] = [(*headings, "source")]
    table += [_row(profiles[name], section) for name, section in sections.items()]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [
            cell.rjust(width) if 1 <= k <= _N_FIGURES else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        tell("  ".join(cells).rstrip())
    tell("TTFT 256: time to the first token of 256. streams: requests at once when measured.")
    tell("Public figures, not measured here: --json says what was read, computed and assumed.")


def fit_profile(
    path: Path,
    name: str | None,
    scope: Scope,
    idle_w: float,
    stated_w: tuple[float | None, float | None],
    seed: int,
    as_json: bool,
) -> None:
    """Print a profile fitted to measurements, and how far it is off on held-out rows.

    Raises
    ------
    MeasurementsError
        The table is wrong or too small, or watts are neither measured nor stated, or both.
    """
    measured = read_measurements(path, idle_w)
    try:
        profile = fit(name or path.stem, measured)
    except ValueError as error:
        raise MeasurementsError(f"{path}: {error}") from error
    profile = replace(
        _with_watts(profile, measured, stated_w, path),
        scope=scope,
        source=f"fitted to {measured.ttft_ms.size} rows of {path.name}",
    )
    errors = held_out_errors(measured, np.random.default_rng(seed))
    if as_json:
        print_json({"devices": _section(profile), "held_out": _finite(asdict(errors))})
    else:
        _print(profile, errors)
    if max(errors.ttft, errors.latency, errors.energy) > _POOR:
        say(
            "the fit is poor: were other requests served at the same time, was the clock throttled?"
        )


def _row(profile: DeviceProfile, section: ShippedSection) -> tuple[str, ...]:
    return (
        profile.name,
        f"{profile.decode_tokens_per_s:.1f}",
        f"{profile.token_j:.3f}",
        f"{profile.ttft_ms(_PROMPT_TOKENS):,.0f} ms",
        str(section.streams),
        profile.scope,
        section.idle,
        re.split(r" \(|, |: ", profile.source)[0],
    )


def _with_watts(
    profile: DeviceProfile,
    measured: Measurements,
    stated_w: tuple[float | None, float | None],
    path: Path,
) -> DeviceProfile:
    metered = bool(np.any(measured.energy_j > 0))
    if not metered and None in stated_w:
        raise MeasurementsError(
            f"{path}: no row has energy_j or power_w: state watts with --prefill-w and "
            "--decode-w (0 leaves joules out of account)"
        )
    fitted_w = (profile.prefill_w, profile.decode_w)
    watts = list(fitted_w)
    for k, (phase, fitted, stated) in enumerate(
        zip(("prefill", "decode"), fitted_w, stated_w, strict=True)
    ):
        if stated is not None and fitted > 0:
            raise MeasurementsError(
                f"{path}: its joules make {phase}_w {fitted:.4g}: leave --{phase}-w out"
            )
        if stated is not None:
            watts[k] = stated
        elif fitted == 0:
            say(f"{phase}_w is 0: the rows do not tell its joules apart; --{phase}-w states it")
    return replace(profile, prefill_w=watts[0], decode_w=watts[1])


def _print(profile: DeviceProfile, errors: FitErrors) -> None:
    tell("# median error on held-out rows:")
    for what, error, n_rows in (
        ("time to the first token", errors.ttft, errors.n_ttft),
        ("latency", errors.latency, errors.n_latency),
        ("joules", errors.energy, errors.n_energy),
    ):
        tell(f"#   {what}: " + (f"{error:.1%} of {n_rows} rows" if n_rows else "not measured"))
    tell(yaml.safe_dump({"devices": _section(profile)}, sort_keys=False, width=200).rstrip())


def _section(profile: DeviceProfile) -> dict[str, Any]:
    fields = asdict(profile)
    name = fields.pop("name")
    return {name: {k: _rounded(v) if isinstance(v, float) else v for k, v in fields.items()}}


def _figures(profile: DeviceProfile) -> dict[str, Any]:
    ttft_ms = _rounded(profile.ttft_ms(_PROMPT_TOKENS))
    return {
        "name": profile.name,
        "token_j": _rounded(profile.token_j),
        f"ttft_{_PROMPT_TOKENS}_ms": ttft_ms,
    }


def _finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {k: None if math.isnan(v) else v for k, v in figures.items()}


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
