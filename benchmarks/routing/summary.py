"""Write the tables of README.md and peers/README.md from results.json.

python benchmarks/routing/summary.py

A table stands between `<!-- NAME -->` and the next `<!-- end -->`; all between is replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PEER_POOLS = ("routerdc", "llmrouter_9", "openllm <=10B", "mmlupro chat", "routellm pair")

Found = dict[str, Any]


def rows(header: Sequence[str], body: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    first, *others = ["| " + " | ".join(line) + " |" for line in (header, *body)]
    return "\n".join([first, "|" + "---|" * len(header), *others])


def share(score: float) -> str:
    """A score as ``.527``."""
    return f"{score:.3f}".removeprefix("0")


def points(difference: float, ci95: tuple[float, float]) -> str:
    """A difference in points with its interval, bold if the interval leaves 0 out."""
    low, high = (100 * bound for bound in ci95)
    text = f"{100 * difference:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def arms(pool: Found) -> Found:
    """The arms of a pool's evaluation by name."""
    return {arm["name"]: arm for arm in pool["evaluation"]["arms"]}


def pools_table(pools: Found) -> str:
    """Per pool: what routing gains, and how far the best other router is behind."""

    def line(name: str, pool: Found) -> list[str]:
        found, evaluation = arms(pool), pool["evaluation"]
        ours = found["coe"]
        other, peer = max(pool["peers"].items(), key=lambda item: item[1]["score"])
        return [
            name,
            f"{pool['n_experts']}, {evaluation['n_prompts']}",
            share(found[f"always {evaluation['best_single']}"]["score"]),
            share(ours["score"]),
            points(ours["delta_best_single"], ours["delta_ci95"]),
            f"{other} {share(peer['score'])}",
            points(peer["coe_ahead_by"], peer["coe_ahead_ci95"]),
        ]

    header = ["pool", "experts, prompts", "best single", "coe", "gain, 95 %"]
    header += ["best other router", "coe ahead by, 95 %"]
    return rows(header, [line(name, pool) for name, pool in pools.items()])


def savings_table(pools: Found) -> str:
    """Per pool with known prices: what giving up a point saved."""
    body = [
        [
            name,
            f"{100 * saved['delta_best_single']:+.1f}",
            f"{saved['cost_ratio']:.2f}",
        ]
        for name, pool in pools.items()
        if (saved := pool["within_a_point"])
    ]
    return rows(["pool", "points over the best single", "share of its dollars"], body)


def null_table(pools: Found) -> str:
    """Per pool of the null test: what routing gained from shuffled outcomes."""
    body = [
        [name, points(null["gain"], null["ci95"]), "yes" if null["declined"] else "no"]
        for name, pool in pools.items()
        if (null := pool["shuffled"])
    ]
    return rows(["pool", "gain, 95 %", "declined to route"], body)


def peers_table(pools: Found) -> str:
    """Dev score of every router on the pools where the installed peers ran."""
    here = {name: pools[name] for name in PEER_POOLS if name in pools}

    def plain(name: str, arm: str) -> list[str]:
        found = (arms(pool).get(arm) for pool in here.values())
        return [name, *(share(each["score"]) if each else "-" for each in found)]

    def single(pool: Found) -> str:
        return share(arms(pool)[f"always {pool['evaluation']['best_single']}"]["score"])

    def peer(router: str) -> list[str]:
        return [f"`{router}`", *(cell(pool, router) for pool in here.values())]

    named = [[*pool["installed_peers"], *pool["peers"]] for pool in here.values()]
    routers = list(dict.fromkeys(router for names in named for router in names))
    ran = [name for name in routers if any(name in pool["peers"] for pool in here.values())]
    return rows(
        ["", *here],
        [
            plain("random expert", "random"),
            ["best single of training", *(single(pool) for pool in here.values())],
            plain("oracle (inflated by luck)", "oracle prompt"),
            *(peer(router) for router in sorted(ran)),
            plain("coe", "coe"),
        ],
    )


def cell(pool: Found, router: str) -> str:
    """Score, seconds to fit and milliseconds a prompt; or how long it was waited for in vain."""
    said = pool["installed_peers"].get(router, {})
    if router not in pool["peers"]:
        waited = re.search(r"did not finish in (\d+) s", said.get("not_run", ""))
        return f"> {waited[1]} s" if waited else "-"
    score = share(pool["peers"][router]["score"])
    return f"{score} ({said['fit_s']:.0f}, {said['predict_ms']:.1f})" if said else score


def written(text: str, name: str, table: str) -> str:
    """``text`` with the table of this name replaced.

    Raises
    ------
    ValueError
        There is no such place, or more than one.
    """
    place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    found, n = place.subn(lambda match: f"{match[1]}{table}\n{match[2]}", text)
    if n != 1:
        raise ValueError(f"{n} places for table {name!r}")
    return found


TABLES = {
    "README.md": {"pools": pools_table, "savings": savings_table, "null": null_table},
    "peers/README.md": {"peers": peers_table},
}


def main() -> None:
    """Read and write."""
    pools = json.loads((HERE / "results.json").read_text())["pools"]
    for file, tables in TABLES.items():
        path = HERE / file
        text = path.read_text(encoding="utf-8")
        for name, table in tables.items():
            text = written(text, name, table(pools))
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
