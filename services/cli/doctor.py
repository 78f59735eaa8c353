"""``coe doctor``."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path

import typer

from coe.budgets import load_budgets, load_policies
from coe.config import Config, MeteringSection, find_config, load_config
from coe.core import Policy, Request
from coe.environment import weights_home
from coe.errors import CoeError
from coe.free import FreeSection
from coe.kinds import EmbeddedSection, ExpertSection
from coe.permitted import Circle, permitted
from coe.router import Router
from coe.routers.artefact import Artefact
from coe.routers.embed import load_for
from coe.services.cli.console import print_json, results
from coe.services.cli.doctor_gateway import gateway_findings
from coe.services.cli.finding import Finding, attempt
from coe.services.cli.fleet_control import seen
from coe.services.draft import offers_of, retriever_of
from coe.services.embedding import check_local, configured
from coe.services.metering.detect import ALL, survey
from coe.services.metering.machine import kinds
from coe.services.mixable import vocabularies
from coe.services.personal import tenants_of
from coe.services.runnable import missing
from coe.services.weights import embedded_weights, verified

_GIB = 1024**3
_NEEDED_BYTES = 2 * _GIB


def run(config_path: Path | None, as_json: bool) -> None:
    """Print every finding; exit code 1 when one of them failed."""
    findings = list(_examine(find_config(config_path)))
    failed = any(finding.status == "failed" for finding in findings)
    if as_json:
        print_json({"ok": not failed, "findings": [asdict(finding) for finding in findings]})
    else:
        marks = {
            "ok": "[green]ok[/]     ",
            "warning": "[yellow]warning[/]",
            "failed": "[red]failed[/] ",
        }
        for finding in findings:
            results.print(f"{marks[finding.status]} ", end="")
            results.print(f"{finding.subject}: {finding.detail}", markup=False)
            if finding.remedy:
                results.print(f"        mend it: {finding.remedy}", markup=False)
    raise typer.Exit(1 if failed else 0)


def _examine(path: Path) -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.machine()}")
    yield _memory()
    config: Config | None = None
    try:
        config = load_config(path)
        yield Finding("configuration", "ok", str(path))
    except CoeError as error:
        yield Finding("configuration", "failed", str(error), "correct the lines named above")
    if config is None:
        return
    yield attempt(
        "budgets",
        lambda: _budgets(config),
        "correct the lines named above",
    )
    yield from _policies(config)
    if config.embedder is not None:
        yield attempt(
            "embedder",
            lambda: _embedder(config),
            "correct section `embedder` of coe.yaml, or start its endpoint",
        )
    yield attempt("artefact", lambda: _artefact(config), "train it again with `coe train`")
    if config.shadow is not None:
        yield attempt("shadow", lambda: _shadow(config), "correct section `shadow` of coe.yaml")
    if config.retrieval is not None:
        remedy = "make it again with `coe index build`, or correct section `retrieval`"
        yield attempt("retrieval", lambda: _retrieval(config), remedy)
    if config.plan is not None:
        yield attempt("plan", lambda: _plan(config), "make it again with `coe plan`")
    if config.tenants:
        yield attempt(
            "tenants",
            lambda: _tenants(config),
            "train the gate again with `coe personalise`, or correct section `tenants`",
        )
    experts = [
        Finding(f"expert {section.id}", "ok", f"{section.kind}, on the fleet")
        if config.on_fleet(section)
        else _expert(section)
        for section in config.computing
    ]
    yield from experts
    for free in config.experts:
        if isinstance(free, FreeSection):
            yield Finding(f"expert {free.id}", "ok", f"{free.kind}, computes nothing")
    yield from _mixtures(config)
    if config.fleet is not None:
        yield _fleet(config)
    if experts and not any(finding.status == "ok" for finding in experts):
        yield Finding("experts", "failed", "none can run", "mend at least one of the above")
    yield _energy(config.metering)
    yield from gateway_findings(config)


def _budgets(config: Config) -> str:
    budgets = load_budgets(config.budgets, config.specs)
    said = "policies " + ", ".join(_named(one) for one in budgets.as_policies().values())
    return f"{said}; periods {', '.join(budgets.periods)}" if budgets.periods else said


def _named(policy: Policy) -> str:
    """The policy with what it says of experts, if anything."""
    least_one = policy.combine == "never" or policy.most_experts == 1
    traits = [
        "local only" if policy.local_only else "",
        f"without {', '.join(sorted(policy.ban))}" if policy.ban else "",
        f"always with {', '.join(sorted(policy.force))}" if policy.force else "",
        "one expert an answer" if least_one else "",
        "several for streams too" if policy.combine == "always" and not least_one else "",
    ]
    said = "; ".join(filter(None, traits))
    return f"{policy.name} ({said})" if said else policy.name


def _policies(config: Config) -> Iterator[Finding]:
    """Those that leave nobody to answer, or force who may not."""
    own = {section.expert for section in config.tenants.values()}
    names = [expert.id for expert in config.experts if expert.id not in own]
    try:
        policies = load_policies(config.budgets, config.specs)
    except CoeError:
        return
    for policy in policies.values():
        try:
            able = permitted(names, config.specs, policy)
            Circle.of(Request((), policy), [config.specs[name] for name in able])
        except CoeError as error:
            remedy = "until then all its requests are refused; correct it, or its experts"
            yield Finding(f"policy {policy.name}", "warning", str(error), remedy)


def _plan(config: Config) -> str:
    offers = offers_of(config, config.specs)
    assert offers is not None
    return f"for {', '.join(offers.experts)}"


def _tenants(config: Config) -> str:
    artefact = Artefact.load(config.artefact)
    embedder = configured(config.embedder) or load_for(artefact.embedder)
    tenants = tenants_of(config, embedder)
    return ", ".join(
        f"{name} has {one.expert_id}"
        + ("" if one.gate else " by name only")
        + (", its gate declined" if one.gate and one.gate.declined else "")
        for name, one in tenants.items()
    )


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0))
    detail = f"{cores} cores, {total / _GIB:.1f} GiB of memory"
    if total < _NEEDED_BYTES:
        remedy = "run fewer experts here; the embedded two need about 1 GiB together"
        return Finding("machine", "warning", detail, remedy)
    return Finding("machine", "ok", detail)


def _embedder(config: Config) -> str:
    embedder = configured(config.embedder)
    assert embedder is not None
    check_local(config.embedder, load_policies(config.budgets), config.tenants)
    embedder.embed(["One prompt."])
    return embedder.name


def _shadow(config: Config) -> str:
    section = config.shadow
    assert section is not None
    Router.load(section.artefact, list(config.specs.values()), configured(config.embedder))
    return f"{section.artefact}, of {section.share:.0%} of requests"


def _retrieval(config: Config) -> str:
    section = config.retrieval
    assert section is not None
    artefact = Artefact.load(config.artefact)
    retriever_of(section, configured(config.embedder) or load_for(artefact.embedder))
    return f"{section.index}, {section.k} passages at most"


def _artefact(config: Config) -> str:
    embedder = configured(config.embedder)
    router = Router.load(config.artefact, list(config.specs.values()), embedder)
    computing = {expert.id for expert in config.computing}
    unknown = computing - set(router.artefact.expectation.expert_ids)
    note = f"; not trained, only by name: {', '.join(sorted(unknown))}" if unknown else ""
    n_modes = 0 if router.repertoire is None else len(router.repertoire.modes)
    modes = f"{n_modes} modes of several" if n_modes else "no modes of several"
    known = ", ".join(router.artefact.expectation.expert_ids)
    return f"{config.artefact}, knows {known} and {modes}{note}"


def _mixtures(config: Config) -> Iterator[Finding]:
    """Per vocabulary, who can write an answer together; a warning where that is not two."""
    for vocabulary, (mixed, others) in vocabularies(config).items():
        subject, names = f"vocabulary {vocabulary}", ", ".join(mixed)
        if len(mixed) > 1:
            yield Finding(subject, "ok", f"{names} can write an answer together")
        elif others:
            detail = f"experts on a fleet or on demand are not mixed: {', '.join(others)}"
            remedy = "keep two of them in memory here, or leave `vocabulary` out"
            yield Finding(subject, "warning", detail, remedy)
        else:
            remedy = "state it for another expert of the same tokenizer, or leave it out"
            yield Finding(subject, "warning", f"only {names} states it", remedy)


def _fleet(config: Config) -> Finding:
    """Whether the supervisor answers; without it a gateway serves, and its experts are absent."""
    try:
        copies = seen(config).replicas.values()
    except CoeError as error:
        return Finding("fleet", "warning", str(error), "coe fleet up")
    n_ready = sum(replica.report.state == "ready" for replica in copies)
    detail = f"{n_ready} of {len(copies)} copies are ready"
    if not n_ready or n_ready < len(copies):
        return Finding("fleet", "warning", detail, "`coe fleet status` says why the others are not")
    return Finding("fleet", "ok", detail)


def _expert(section: ExpertSection) -> Finding:
    subject = f"expert {section.id}"
    try:
        gap = missing(section)
        if gap:
            return Finding(subject, "warning", gap.reason, gap.remedy)
        if isinstance(section, EmbeddedSection):
            if complaint := _engine_complaint():
                remedy = "install the system library it names, such as libgomp1"
                return Finding(subject, "failed", complaint, remedy)
            path = verified(embedded_weights(section), weights_home())
            return Finding(subject, "ok", f"weights verified, {path}")
    except CoeError as error:
        return Finding(subject, "failed", str(error), "coe weights fetch")
    return Finding(subject, "ok", section.kind)


@cache
def _engine_complaint() -> str:
    """Why llama.cpp cannot be loaded here; empty when it can. Tried in a child process."""
    command = [sys.executable, "-c", "import xllamacpp"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason"])[-1]


def _energy(section: MeteringSection) -> Finding:
    """What measures the engines of this machine, every other meter, and why not the rest."""
    found, failed = survey(ALL, section.sysfs)
    names = {meter.name: str(meter) for meter in found}
    chosen = next((names.pop(kind) for kind in kinds(section) if kind in names), None)
    detail = f"measured by {chosen}" if chosen else "modelled by the device profiles"
    if names:
        detail += f"; also here: {'; '.join(names.values())}"
    reasons = [f"{error.meter}: {error.reason}" for error in failed]
    if reasons:
        detail += f" (cannot be read: {'; '.join(reasons)})"
    remedy = "; ".join(error.remedy for error in failed if error.remedy)
    if chosen or section.meter == "modelled":
        return Finding("energy", "ok", detail)
    if section.meter != "auto":
        return Finding("energy", "failed", detail, remedy or "set metering.meter to auto")
    return Finding("energy", "warning" if remedy else "ok", detail, remedy)
