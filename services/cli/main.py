"""The verbs and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import coe
from coe.services.cli.console import ConfigOption, JsonOption, errors_explained, notes
from coe.services.cli.experts import experts_app
from coe.services.cli.files import devices_app, index_app, weights_app
from coe.services.cli.fleet import fleet_app
from coe.services.cli.keys import keys_app
from coe.services.cli.ledger import ledger_app
from coe.services.cli.options import (
    ArtefactOption,
    BudgetOption,
    BudgetsOption,
    CostOption,
    EnergyOption,
    KOption,
    LatencyOption,
    ModeOption,
    PoliciesOption,
    PromptArgument,
    TenantOption,
    TraceOption,
)
from coe.services.cli.tenant import personalise

app = typer.Typer(
    help="Route every prompt to the expert that answers it best within its budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(weights_app, name="weights", no_args_is_help=True)
app.add_typer(index_app, name="index", no_args_is_help=True)
app.add_typer(devices_app, name="devices", no_args_is_help=True)
app.add_typer(fleet_app, name="fleet", no_args_is_help=True)
app.add_typer(experts_app, name="experts", no_args_is_help=True)
app.add_typer(ledger_app, name="ledger", no_args_is_help=True)
app.add_typer(keys_app, name="keys", no_args_is_help=True)
app.command()(personalise)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"coe {coe.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Route every prompt to the expert that answers it best within its budget."""


@app.command()
def serve(
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = None,
    without_keys: Annotated[
        bool,
        typer.Option(
            "--without-keys", help="Let everybody in who reaches it, also from other machines."
        ),
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that share the port and its requests.")
    ] = 1,
) -> None:
    """Start the gateway and its experts."""
    from coe.services.cli.serve import run

    with errors_explained():
        run(config, host, port, without_keys, workers)


@app.command()
def chat(
    prompt: PromptArgument,
    budget: BudgetOption = "default",
    model: Annotated[str | None, typer.Option(help="An expert's id instead of a policy.")] = None,
    energy_j: EnergyOption = None,
    latency_ms: LatencyOption = None,
    cost_usd: CostOption = None,
    mode: ModeOption = None,
    k: KOption = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = None,
    url: Annotated[str | None, typer.Option(help="A running gateway.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask, print the answer as it streams, then who answered and why."""
    from coe.services.cli.chat import run

    ceilings = {"energy_j": energy_j, "latency_ms": latency_ms, "cost_usd": cost_usd}
    with errors_explained():
        several = {"mode": mode, "k": k}
        run(prompt, model or f"auto:{budget}", ceilings, several, max_tokens, url, config, as_json)


@app.command()
def route(
    prompt: PromptArgument,
    budget: BudgetOption = "default",
    energy_j: EnergyOption = None,
    latency_ms: LatencyOption = None,
    cost_usd: CostOption = None,
    mode: ModeOption = None,
    k: KOption = None,
    tenant: TenantOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decide who would answer, without asking anyone."""
    from coe.services.cli.route import run

    ceilings = {"energy_j": energy_j, "latency_ms": latency_ms, "cost_usd": cost_usd}
    with errors_explained():
        run(prompt, budget, ceilings, mode, k, tenant, config, as_json)


@app.command()
def collect(
    prompts: Annotated[Path, typer.Option(help="JSON Lines with prompt_id, prompt, check.")],
    out: Annotated[Path, typer.Option(help="Outcome table to write (Parquet).")],
    expert: Annotated[list[str] | None, typer.Option(help="Only these experts.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once per expert.")] = 1,
    run_code: Annotated[
        bool, typer.Option("--run-code", help="Run programs that experts wrote, to score them.")
    ] = False,
    index: Annotated[
        Path | None, typer.Option(help="Ask a second time with passages of this index.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run experts over prompts, score the answers, write the outcomes."""
    from coe.services.cli.collect import run

    with errors_explained():
        run(prompts, out, expert, concurrency, run_code, index, config, as_json)


@app.command()
def train(
    outcomes: Annotated[Path, typer.Option(help="Outcome table (Parquet).")],
    out: Annotated[Path, typer.Option(help="Folder of the artefact.")],
    index: Annotated[
        Path | None, typer.Option(help="Index that `coe collect` took its passages from.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn a router from outcomes."""
    from coe.services.cli.train import run

    with errors_explained():
        run(outcomes, out, index, config, as_json)


@app.command()
def evaluate(
    outcomes: Annotated[Path, typer.Option(help="Outcome table (Parquet).")],
    artefact: Annotated[
        Path | None, typer.Option(help="Folder of the artefact; the configured one by default.")
    ] = None,
    split: Annotated[str, typer.Option(help="Rows to evaluate on.")] = "test",
    report: Annotated[
        Path | None, typer.Option(help="HTML report to write, with its pictures beside it.")
    ] = None,
    stored_params_b: Annotated[
        float | None, typer.Option(help="Budget of stored parameters, in billions.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the router with every plainer one on held-out prompts."""
    from coe.services.cli.evaluate import run

    with errors_explained():
        run(outcomes, artefact, split, report, stored_params_b, seed, config, as_json)


@app.command()
def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check this machine and the configuration, and say what to mend."""
    from coe.services.cli.doctor import run

    with errors_explained():
        run(config, as_json)


@app.command("plan")
def plan_(
    budget: BudgetOption = "default",
    config: ConfigOption = None,
    artefact: ArtefactOption = None,
    budgets: BudgetsOption = None,
    outcomes: Annotated[
        Path | None, typer.Option(help="Recorded answers, to plan sets of several experts on.")
    ] = None,
    split: Annotated[str, typer.Option(help="Rows of the outcomes to plan on.")] = "dev",
    aggregation: Annotated[
        str, typer.Option(help="best or modes; with outcomes: mixture, choose or likelihood.")
    ] = "best",
    k: Annotated[
        int | None, typer.Option("-k", "--k", min=1, help="Experts that answer one prompt.")
    ] = None,
    mean_energy_j: Annotated[
        float | None, typer.Option(min=0, help="Ceiling on the mean joules of a request.")
    ] = None,
    mean_cost_usd: Annotated[
        float | None, typer.Option(min=0, help="Ceiling on the mean dollars of a request.")
    ] = None,
    method: Annotated[str, typer.Option(help="auto, or a solver by name.")] = "auto",
    time_limit_s: Annotated[
        float | None, typer.Option(min=0.001, help="Stop searching after so many seconds.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the plan to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the staircases: .png or .svg.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the best sets of experts within budgets, with a certificate."""
    with notes.status("loading the optimiser: the first time it is compiled, some 20 s"):
        from coe.services.cli.plan import Wish, run

    wish = Wish(
        budget, outcomes, split, aggregation, k, mean_energy_j, mean_cost_usd, method, time_limit_s
    )
    with errors_explained():
        run(wish, config, artefact, budgets, out, plot, as_json)


@app.command()
def simulate(
    outcomes: Annotated[Path, typer.Option(help="Outcome table (Parquet).")],
    policy: PoliciesOption = None,
    requests: Annotated[int, typer.Option(min=1, help="How many arrive.")] = 10_000,
    rate: Annotated[
        float | None,
        typer.Option(help="Mean arrivals a second; by default the trace's, or a fair load."),
    ] = None,
    trace: TraceOption = None,
    lengths: Annotated[
        bool, typer.Option(help="Take lengths of prompts and answers from the trace.")
    ] = True,
    replicas: Annotated[
        list[str] | None, typer.Option(help="EXPERT=NUMBER; may repeat. 1 by default.")
    ] = None,
    fleet: Annotated[
        Path | None, typer.Option(help="YAML file with replicas: {EXPERT: NUMBER}.")
    ] = None,
    budget: BudgetOption = "default",
    budgets: BudgetsOption = None,
    artefact: ArtefactOption = None,
    plan: Annotated[
        Path | None, typer.Option(help="Of `coe plan`; by default the configured one.")
    ] = None,
    split: Annotated[str, typer.Option(help="Rows of the outcomes to ask.")] = "test",
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals, prompts and draws.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the result (JSON) to this file.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw quality, joules and latencies: .svg, .png or .pdf.")
    ] = None,
    speedup: Annotated[
        bool, typer.Option("--speedup", help="Also show how fast the simulation was.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay recorded outcomes on a fleet of any size, policies side by side."""
    with notes.status("loading the simulator: the first time it is compiled, some 30 s"):
        from coe.services.cli.simulate import Wish, run

    wish = Wish(
        outcomes=outcomes,
        split=split,
        artefact=artefact,
        trace=trace,
        lengths=lengths,
        rate_per_s=rate,
        n_requests=requests,
        replicas=replicas or (),
        fleet=fleet,
        policies=policy or (),
        plan=plan,
        budget=budget,
        budgets=budgets,
        seed=seed,
    )
    with errors_explained():
        run(wish, config, out, plot, speedup, as_json)
