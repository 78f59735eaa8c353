"""Mixed-integer programs, run: CBC, which PuLP brings along, as a process, or HiGHS in this one.

Objectives are to be blown up to about `SCALE`, so that the tolerances of the solvers vanish.
"""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
import pulp  # type: ignore[import-untyped]

from coe.errors import CoeError

Solver = Literal["cbc", "highs"]

Ending = Literal["optimal", "feasible", "infeasible", "unknown"]

SCALE = 1e6
"""CBC passes over gains below 1e-5 and prints bounds to 1e-3: objectives are blown up first."""

_SANE = 1e-5
"""By how much a row of a solution may be broken."""

_BOUND = re.compile(r"^Lower bound: +(\S+)", re.MULTILINE)


class _CrashError(CoeError):
    """CBC was started, and ended with an error or without a solution file."""


def check_solver(solver: str, time_limit_s: float | None) -> None:
    """Nothing, if the solver can be run for that long.

    Raises
    ------
    ValueError
        There is no such solver, HiGHS is not installed, or the time limit is not positive.
    """
    if solver not in get_args(Solver):
        raise ValueError(f"solver must be one of {get_args(Solver)}, not {solver!r}")
    if solver == "highs" and not pulp.HiGHS(msg=False).available():
        raise ValueError("solver 'highs' needs the package highspy: coe-router[highs]")
    if time_limit_s is not None and not time_limit_s > 0:
        raise ValueError(f"time_limit_s must be positive, not {time_limit_s!r}")


def run(lp: Any, time_limit_s: float | None, solver: Solver = "cbc") -> tuple[Ending, float]:
    """How solving a minimisation ended, and a lower bound; the solution is in the variables.

    CBC 2.10.3 is run without its integer preprocessing, after which it may call a solution optimal
    that is not. One that does not satisfy its own program is asked for again without the presolve
    of the relaxation either, and then given up. Where cuts show that there is no solution, CBC
    without preprocessing crashes: it is run again with it, and what it finds is not called optimal.

    Raises
    ------
    CoeError
        The solver could not be run.
    """
    if solver == "highs":
        ending, bound = _ask_highs(lp, time_limit_s)
        broken = ending in ("optimal", "feasible") and not lp.valid(_SANE)
        return ("unknown", bound) if broken else (ending, bound)
    try:
        status, bound = _ask_cbc(lp, time_limit_s, "preprocess off")
    except _CrashError:
        status, _ = _ask_cbc(lp, time_limit_s)
        if status in ("optimal", "feasible"):
            return ("feasible" if lp.valid(_SANE) else "unknown"), -np.inf
        return status, -np.inf
    if status in ("optimal", "feasible") and not lp.valid(_SANE):
        status, bound = _ask_cbc(lp, time_limit_s, "preprocess off", "presolve off")
        if status in ("optimal", "feasible") and not lp.valid(_SANE):
            return "unknown", -np.inf
    return status, bound


def _ask_highs(lp: Any, time_limit_s: float | None) -> tuple[Ending, float]:
    """One run of HiGHS, until nothing is left between solution and bound."""
    try:
        lp.solve(pulp.HiGHS(msg=False, threads=1, timeLimit=time_limit_s, gapRel=0.0))
    except pulp.PulpSolverError as error:
        raise CoeError(f"HiGHS failed: {error}") from error
    bound = float(lp.solverModel.getInfo().mip_dual_bound)
    return _ending(lp), bound


def _ending(lp: Any) -> Ending:
    if lp.status == pulp.LpStatusInfeasible:  # for some of these, sol_status says "not found"
        return "infeasible"
    if lp.sol_status == pulp.LpSolutionOptimal:
        return "optimal"
    return "feasible" if lp.sol_status == pulp.LpSolutionIntegerFeasible else "unknown"


def _ask_cbc(lp: Any, time_limit_s: float | None, *options: str) -> tuple[Ending, float]:
    """One run of CBC. All that it and PuLP write lies in a folder that is removed at the end."""
    with TemporaryDirectory(prefix="coe-program-") as folder:
        log = Path(folder) / "log"
        solver = pulp.COIN_CMD(
            path=pulp.PULP_CBC_CMD.pulp_cbc_path,
            msg=False,
            threads=0,  # none besides its own; with 1, a run in a hundred stalls for 10 s
            timeLimit=time_limit_s,
            options=list(options),
            logPath=str(log),
        )
        solver.tmpDir = folder
        if not solver.available():
            raise CoeError(f"CBC, which comes with PuLP, cannot be executed: {solver.path}")
        failed = f"CBC, which comes with PuLP, failed in {folder}"
        try:
            lp.solve(solver)
        except pulp.PulpSolverError as error:
            raise _CrashError(f"{failed}: {error}") from error
        except OSError as error:
            raise CoeError(f"{failed}: {error}") from error
        stated = _BOUND.search(log.read_text())
    # printed with three decimals
    bound = float(stated[1]) - 1e-3 if stated else -np.inf
    in_time = time_limit_s is None or lp.solutionTime < time_limit_s
    ending = _ending(lp)
    # CBC 2.10.3 calls a program infeasible, too, if time runs out while it prepares
    return ("unknown" if ending == "infeasible" and not in_time else ending), bound
