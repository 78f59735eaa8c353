"""``coe.yaml`` and ``budgets.yaml``: read, checked, turned into nouns.

The only place where configuration files and environment variables are read. An error names
file, line, field, value and remedy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import coe
from coe.core import Budget, ExpertSpec, Policy, Prices, TurnRule
from coe.device import DeviceProfile
from coe.errors import ConfigError

DATA = Path(coe.__file__).parent / "data"
"""What ships with the package: default configuration, artefact, embedder, weights manifest."""

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,99}$")]
_Url = Annotated[str, Field(pattern=r"^https?://[^\s]+$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DeviceSection(_Section):
    """One device profile; see `coe.device.DeviceProfile` for the formulas."""

    ttft_a_ms: _NonNegative = 0.0
    ttft_b_ms: _NonNegative
    ttft_c_ms: _NonNegative = 0.0
    decode_tokens_per_s: _Positive
    prefill_w: _NonNegative
    decode_w: _NonNegative
    scope: Literal["rail", "board", "wall"] = "board"
    source: str = ""


class _ExpertSection(_Section):
    id: _Name
    device: str
    params_b: _NonNegative = 0.0
    context_tokens: Annotated[int, Field(gt=0)] = 4096
    slots: Annotated[int, Field(gt=0)] = 1
    answer_tokens: Annotated[int, Field(gt=0)] | None = None
    usd_per_mtok_in: _NonNegative = 0.0
    usd_per_mtok_out: _NonNegative = 0.0
    first_token_timeout_s: _Positive = 60.0
    idle_timeout_s: _Positive = 30.0


class EmbeddedSection(_ExpertSection):
    """An expert that runs in a llama.cpp process on this machine."""

    kind: Literal["embedded"]
    weights: str
    threads: Annotated[int, Field(gt=0)] | None = None
    repeat_penalty: _Positive = 1.0


class HttpSection(_ExpertSection):
    """An expert behind any OpenAI-compatible server."""

    kind: Literal["http"]
    base_url: _Url
    upstream_model: str | None = None
    api_key_env: str | None = None
    connect_timeout_s: _Positive = 3.0
    answer_timeout_s: _Positive = 600.0


class ReplaySection(_ExpertSection):
    """An expert that repeats recorded answers at the pace of its device profile."""

    kind: Literal["replay"]
    recording: Path
    recorded_as: str | None = None
    time_scale: _NonNegative = 1.0


ExpertSection = Annotated[
    EmbeddedSection | HttpSection | ReplaySection, Field(discriminator="kind")
]


class LocalEmbedderSection(_Section):
    """An embedder that needs nothing but this package; see `coe.routers.embed`."""

    kind: Literal["default", "static", "lexical"]


class EndpointSection(_Section):
    """An embedder behind any OpenAI-compatible ``/embeddings``."""

    kind: Literal["endpoint"]
    base_url: _Url
    model: Annotated[str, Field(pattern=r"^\S{1,200}$")]
    api_key_env: str | None = None
    dim: Annotated[int, Field(gt=0)] | None = None
    timeout_s: _Positive = 5.0
    max_chars: Annotated[int, Field(gt=0)] = 2000


EmbedderSection = Annotated[LocalEmbedderSection | EndpointSection, Field(discriminator="kind")]


class GatewaySection(_Section):
    """Where the gateway listens."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    max_body_bytes: Annotated[int, Field(gt=0)] = 4 * 1024 * 1024
    kept_decisions: Annotated[int, Field(gt=0)] = 10_000


class RetrievalSection(_Section):
    """Where passages come from, and how many go with a prompt."""

    index: Path
    k: Annotated[int, Field(ge=1, le=50)] = 4
    passage_tokens: Annotated[int, Field(ge=128)] = 1024
    mode: Literal["hybrid", "bm25", "dense"] = "hybrid"


class RoutingSection(_Section):
    """Which turns of a conversation a decision goes by; see `coe.routers.turns`."""

    turns: TurnRule = "sticky"
    switch_margin: _NonNegative = 0.03


class Config(_Section):
    """The whole of ``coe.yaml``. Paths are relative to the file."""

    gateway: GatewaySection = GatewaySection()
    artefact: Path = DATA / "artefact"
    embedder: EmbedderSection | None = None
    routing: RoutingSection = RoutingSection()
    retrieval: RetrievalSection | None = None
    budgets: Path = DATA / "budgets.yaml"
    devices: dict[str, DeviceSection]
    experts: Annotated[list[ExpertSection], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        ids = [expert.id for expert in self.experts]
        for name in ids:
            if ids.count(name) > 1:
                raise ValueError(f"expert id {name!r} is used twice: ids must differ")
            if name == "auto" or name.startswith("auto:"):
                raise ValueError(f"expert id {name!r} is reserved: choose another")
        for expert in self.experts:
            if expert.device not in self.devices:
                known = ", ".join(sorted(self.devices))
                raise ValueError(
                    f"expert {expert.id!r} runs on unknown device {expert.device!r}: "
                    f"add it under devices, or use one of {known}"
                )
        return self

    def spec(self, expert: _ExpertSection) -> ExpertSpec:
        """The noun that the deciding layers see."""
        return ExpertSpec(
            id=expert.id,
            profile=DeviceProfile(name=expert.device, **self.devices[expert.device].model_dump()),
            params_b=expert.params_b,
            context_tokens=expert.context_tokens,
            slots=expert.slots,
            answer_tokens=expert.answer_tokens,
            usd_per_mtok_in=expert.usd_per_mtok_in,
            usd_per_mtok_out=expert.usd_per_mtok_out,
        )

    @property
    def specs(self) -> dict[str, ExpertSpec]:
        """Every configured expert by id."""
        return {expert.id: self.spec(expert) for expert in self.experts}


class _CeilingSection(_Section):
    latency_ms: _Positive | None = None
    ttft_ms: _Positive | None = None
    energy_j: _Positive | None = None
    cost_usd: _Positive | None = None


class _PriceSection(_Section):
    per_second: _NonNegative = 0.0
    per_joule: _NonNegative = 0.0
    per_usd: _NonNegative = 0.0


class PolicySection(_Section):
    """One named policy of ``budgets.yaml``."""

    description: str = ""
    ceilings: _CeilingSection = _CeilingSection()
    prices: _PriceSection = _PriceSection()
    on_infeasible: Literal["reject", "nearest"] = "reject"


class Budgets(_Section):
    """The whole of ``budgets.yaml``; the policy ``default`` serves ``model: auto``."""

    policies: dict[_Name, PolicySection]

    @model_validator(mode="after")
    def _has_default(self) -> Budgets:
        if "default" not in self.policies:
            raise ValueError("there is no policy named 'default': add one, it serves model 'auto'")
        return self

    def as_policies(self) -> dict[str, Policy]:
        """Every policy by name."""
        return {
            name: Policy(
                name=name,
                budget=Budget(**section.ceilings.model_dump()),
                prices=Prices(**section.prices.model_dump()),
                on_infeasible=section.on_infeasible,
                description=section.description,
            )
            for name, section in self.policies.items()
        }


def find_config(path: Path | None) -> Path:
    """``path`` if given, else ``$COE_CONFIG``, else ``./coe.yaml``, else the embedded default."""
    if path is not None:
        return path
    if named := os.environ.get("COE_CONFIG"):
        return Path(named)
    here = Path("coe.yaml")
    return here if here.exists() else DATA / "coe.yaml"


def load_config(path: Path) -> Config:
    """The configuration in ``path``, relative paths resolved against its folder.

    Raises
    ------
    ConfigError
        The file is absent, not YAML, or a field is wrong; every wrong field is named.
    """
    config = _load(path, Config)
    base = path.parent
    return config.model_copy(
        update={
            "artefact": base / config.artefact,
            "budgets": base / config.budgets,
            "experts": [_resolved(expert, base) for expert in config.experts],
            "retrieval": _resolved(config.retrieval, base),
        }
    )


def load_policies(path: Path) -> dict[str, Policy]:
    """The policies in a ``budgets.yaml``.

    Raises
    ------
    ConfigError
        As for `load_config`.
    """
    return _load(path, Budgets).as_policies()


def api_key(section: HttpSection | EndpointSection) -> str | None:
    """The key from the environment variable that a section names; ``None`` when it names none.

    Raises
    ------
    ConfigError
        The variable is not set.
    """
    if section.api_key_env is None:
        return None
    key = os.environ.get(section.api_key_env)
    if not key:
        owner = f"expert {section.id!r}" if isinstance(section, HttpSection) else "embedder"
        raise ConfigError(
            f"{owner}: environment variable {section.api_key_env} is not set: "
            "export it, or remove api_key_env"
        )
    return key


def weights_home() -> Path:
    """Where fetched weights are kept: ``$COE_WEIGHTS``, else the user's cache folder."""
    if named := os.environ.get("COE_WEIGHTS"):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "coe" / "weights"


def _resolved(section: Any, base: Path) -> Any:
    if isinstance(section, ReplaySection):
        return section.model_copy(update={"recording": base / section.recording})
    if isinstance(section, RetrievalSection):
        return section.model_copy(update={"index": base / section.index})
    return section


_S = TypeVar("_S", bound=_Section)


def _load(path: Path, section: type[_S]) -> _S:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    try:
        data, tree = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: such as an impossible date
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must hold a mapping of sections, not {type(data).__name__}")
    lines = _lines(tree, path)
    try:
        return section.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_complaint(path, error, lines)) from error


def _lines(node: Any, path: Path, at: tuple[str | int, ...] = ()) -> dict[tuple[Any, ...], int]:
    """Line number of every field, by its path; a repeated key is refused."""
    found = {at: node.start_mark.line + 1}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, key.value)
            if here in found:
                line = key.start_mark.line + 1
                raise ConfigError(f"{path}:{line}: key {key.value!r} appears twice: keep one")
            found |= _lines(value, path, here) | {here: key.start_mark.line + 1}
    elif isinstance(node, yaml.SequenceNode):
        for k, value in enumerate(node.value):
            found |= _lines(value, path, (*at, k))
    return found


def _complaint(path: Path, error: ValidationError, lines: Mapping[tuple[Any, ...], int]) -> str:
    """One line per wrong field: file, line, field, value, what would be right."""
    complaints = []
    for row in error.errors(include_url=False):
        loc = row["loc"]
        # pydantic adds the union's tag to the path of a tagged union: it is not in the file
        if loc[:1] == ("experts",):
            loc = loc[:2] + loc[3:]
        elif loc[:1] == ("embedder",):
            loc = loc[:1] + loc[2:]
        known = next((loc[:n] for n in range(len(loc), -1, -1) if loc[:n] in lines), ())
        field = ".".join(str(part) for part in loc) or "(whole file)"
        value = row["input"]
        got = "" if isinstance(value, dict | list | BaseModel) else f", not {value!r}"
        message = row["msg"].removeprefix("Value error, ")
        complaints.append(f"{path}:{lines[known]}: {field}: {message}{got}")
    return "\n".join(complaints)
