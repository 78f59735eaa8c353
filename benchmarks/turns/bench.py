"""Which turns of a conversation a router should go by: last, all, or sticky at several margins.

    OMP_NUM_THREADS=1 python benchmarks/turns/bench.py [--outcomes FOLDER] [--conversations N]

Builds conversations of four user turns from recorded outcomes of single questions, lets a router
that was trained on other questions choose an expert at every turn, and scores the choice by the
outcome of the question that the turn is about. The margin is chosen on conversations made of rows
that neither fit the router nor are reported, and with other follow-ups. Prints one JSON document,
which names the tables that are absent.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coe.budgets import load_policies
from coe.config import DATA, load_config
from coe.core import ExpertSpec, Message, Policy, Prices, Request, TurnRule, estimated_tokens
from coe.router import Router
from coe.routers.artefact import Artefact
from coe.routers.embed import MEANING_DIM, load_default
from coe.routers.outcomes import Outcomes
from coe.routers.train import embed_all, train
from coe.routers.turns import SWITCH_MARGIN, UserTurn, is_clear, margin_at, turn_that_holds

sys.path.insert(0, str(Path(__file__).parents[1]))
from calibration import calibration
from follow_ups import REPORT_FOLLOW_UPS, TUNE_FOLLOW_UPS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROOT = Path(__file__).parents[2]
OUTCOMES = Path(__file__).parents[3] / "shared" / "data" / "outcomes"
UNDER_10B = (
    "Qwen/Qwen2.5-7B-Instruct",
    "google/gemma-2-9b-it",
    "google/gemma-2b-it",
    "mistralai/Mistral-7B-Instruct-v0.1",
    "mistralai/Mistral-7B-Instruct-v0.2",
    "mistralai/Mistral-7B-Instruct-v0.3",
)
# rows that a router is fitted to, and its experts where not all
TABLES: Mapping[str, tuple[int, tuple[str, ...] | None]] = {
    "routerdc_7models": (4000, None),
    "llmrouter_9models": (2000, None),
    "openllm_v2_18models": (3000, UNDER_10B),
}
N_TURNS, SEED, N_RESAMPLES, N_CHECKED = 4, 0, 2000, 10
KINDS = ("same task", "topic change", "follow-ups", "mix")
MIX = {"follow-up": 0.4, "same task": 0.4, "topic change": 0.2}
MARGINS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.1)
FLAT = (0.02, 0.05, 0.1)  # margins of a rule that treats brief turns like any other
ANSWER = "x" * 240  # stands for what an expert said between two turns: 68 tokens, estimated


@dataclass(frozen=True, eq=False)
class Table:
    """A trained router, and the questions that conversations are made of."""

    name: str
    by_task: bool  # whether a conversation keeps to a task, or to a category
    artefact: Artefact
    specs: tuple[ExpertSpec, ...]
    prices: Prices
    tune: Outcomes
    report: Outcomes


@dataclass(frozen=True, eq=False)
class Talks:
    """Conversations, and what a router makes of them; E experts, T turns.

    ``texts`` (n, T); ``about`` (n, T) the question of each turn; ``known`` (n, T) the category read
    of each turn alone, ``None`` if uncertain, and its ``probability``; ``right`` (n, T) whether the
    likeliest is its question's, ``None`` where the router's categories are not the table's;
    ``utility`` (n, T, T, E), at turn t, of the reading of turn k; ``joined`` (n, T, E) of all turns
    up to t as one text, with ``joined_right``; ``reread`` (n, T, E) what reading the history again
    costs;
    ``value`` (n, T, E) the outcome less what it cost, had the expert stayed; ``tokens`` (n, T) what
    was said before.
    """

    kinds: NDArray[np.str_]
    texts: list[list[str]]
    about: Ints
    known: list[list[str | None]]
    probability: Floats
    right: NDArray[np.bool_] | None
    utility: Floats
    joined: Floats
    joined_right: NDArray[np.bool_] | None
    reread: Floats
    value: Floats
    tokens: Ints


# ---- conversations


def conversation(
    kind: str, groups: Sequence[Ints], follow_ups: Sequence[str], rng: np.random.Generator
) -> tuple[list[str | None], list[int]]:
    """What is said at each turn (``None``: its question), and the question that it is about."""
    sizes = np.array([len(group) for group in groups], dtype=float)
    task = int(rng.choice(len(groups), p=sizes / sizes.sum()))
    said: list[str | None] = []
    about: list[int] = []
    for turn in range(N_TURNS):
        step = "same task"
        if turn and kind == "mix":
            step = str(rng.choice(list(MIX), p=list(MIX.values())))
        elif turn and kind == "follow-ups":
            step = "follow-up"
        elif turn == N_TURNS // 2 and kind == "topic change":
            step = "topic change"
        if step == "follow-up":
            said.append(str(rng.choice(follow_ups)))
            about.append(about[-1])
            continue
        if step == "topic change":
            others = np.where(np.arange(len(groups)) == task, 0.0, sizes)
            task = int(rng.choice(len(groups), p=others / others.sum()))
        fresh = np.setdiff1d(groups[task], about)
        said.append(None)
        about.append(int(rng.choice(fresh)))
    return said, about


def talks(table: Table, rows: Outcomes, follow_ups: Sequence[str], n: int, seed: int) -> Talks:
    """``n`` conversations of each kind, read by the table's router."""
    rng = np.random.default_rng(seed)
    tasks = rows.tasks if table.by_task else rows.categories
    groups = [np.flatnonzero(tasks == name) for name in np.unique(tasks)]
    groups = [group for group in groups if len(group) >= N_TURNS]
    made = [conversation(kind, groups, follow_ups, rng) for kind in KINDS for _ in range(n)]
    about = np.array([questions for _, questions in made])
    texts = [
        [rows.prompts[q] if text is None else text for text, q in zip(said, questions, strict=True)]
        for said, questions in made
    ]
    cube = (*about.shape, len(rows.expert_ids))
    own = np.array([[estimated_tokens(text) for text in said] for said in texts])
    between = estimated_tokens(ANSWER)
    before = np.cumsum(own + between, axis=1) - own - between
    alone = read(table.artefact, [text for said in texts for text in said])
    joined = read(
        table.artefact, ["\n".join(said[: t + 1]) for said in texts for t in range(N_TURNS)]
    )
    # at turn t (second axis) the reading of turn k (third)
    quality, tokens = (
        np.broadcast_to(part.reshape(cube)[:, None], (len(about), N_TURNS, *cube[1:]))
        for part in (alone.quality, alone.tokens)
    )
    joined_quality, joined_tokens = (p.reshape(cube) for p in (joined.quality, joined.tokens))
    answered = rows.tokens[about] if table.prices != Prices() else np.zeros(cube)
    nothing = np.zeros(cube)
    return Talks(
        kinds=np.repeat(KINDS, n),
        texts=texts,
        about=about,
        known=[[name or None for name in row] for row in alone.known.reshape(about.shape).tolist()],
        probability=alone.probability.reshape(about.shape),
        right=alone.right(table, rows, about),
        utility=quality - paid(table, (before + own)[:, :, None], tokens),
        joined=joined_quality - paid(table, before + own, joined_tokens),
        joined_right=joined.right(table, rows, about),
        reread=paid(table, before + own, nothing) - paid(table, own, nothing),
        value=rows.scores[about] - paid(table, own, answered),
        tokens=before,
    )


@dataclass(frozen=True, eq=False)
class Read:
    """What a router makes of n texts: expected quality and mean tokens (n, E), category (n,).

    ``probability`` is that of the likeliest category; ``known`` is empty where it is uncertain.
    """

    quality: Floats
    tokens: Floats
    likeliest: NDArray[np.str_]
    known: NDArray[np.str_]
    probability: Floats

    def right(self, table: Table, rows: Outcomes, about: Ints) -> NDArray[np.bool_] | None:
        """(n, T) whether the likeliest category is that of the question; ``None``: no such."""
        classes = table.artefact.category.classes_
        for labels in (rows.categories, rows.tasks):
            if np.isin(labels, classes).any():
                return self.likeliest.reshape(about.shape) == labels[about]
        return None


def read(artefact: Artefact, texts: Sequence[str]) -> Read:
    """What the artefact's router makes of each text alone."""
    unique = list(dict.fromkeys(texts))
    rows = {text: k for k, text in enumerate(unique)}
    X = embed_all(load_default(), tuple(unique))
    found = artefact.category.assess(X)
    found = replace(found, uncertain=found.uncertain | ~X.any(axis=1))
    expected = artefact.expectation.of(X, found)
    likeliest = artefact.category.classes_[found.probabilities.argmax(axis=1)].astype(str)
    probability = found.probabilities.max(axis=1)
    known = np.where(found.uncertain, "", likeliest)
    order = np.array([rows[text] for text in texts])
    return Read(
        expected.quality[order],
        expected.mean_tokens[order],
        likeliest[order],
        known[order],
        probability[order],
    )


def paid(table: Table, prompt_tokens: Ints, answer_tokens: Floats) -> Floats:
    """Points of quality that answers cost at the table's prices, shape of ``answer_tokens``."""
    costs = np.zeros(answer_tokens.shape)
    for k, spec in enumerate(table.specs):
        longest = spec.answer_tokens or np.inf
        profile, tokens = spec.profile, np.minimum(answer_tokens[..., k], longest)
        ttft_ms: Any = profile.ttft_ms(prompt_tokens)
        seconds = (ttft_ms + profile.decode_ms(tokens)) / 1000.0
        joules = profile.prefill_w * ttft_ms / 1000.0
        joules = joules + profile.decode_w * profile.decode_ms(tokens) / 1000.0
        dollars: Any = spec.cost_usd(prompt_tokens, tokens)
        prices = table.prices
        costs[..., k] = seconds * prices.per_second + joules * prices.per_joule
        costs[..., k] += dollars * prices.per_usd
    return costs


# ---- rules


def held_turns(seen: Talks, margin: float, brief: bool = True) -> Ints:
    """(n, T) the turn that holds at each turn under ``sticky``.

    Without ``brief`` a turn of few words is treated like any other.
    """
    held = np.zeros(seen.about.shape, dtype=int)
    for i, texts in enumerate(seen.texts):
        turns = [UserTurn(text, 0, 1) for text in texts]
        needed = [margin_at(turn, margin) if brief else margin for turn in turns]
        clear = [
            not (k and brief) or is_clear(t, seen.probability[i, k]) for k, t in enumerate(turns)
        ]
        known = [name if ok else None for name, ok in zip(seen.known[i], clear, strict=True)]
        for k in range(N_TURNS):
            held[i, k] = turn_that_holds(
                known[: k + 1],
                lambda t, i=i: seen.utility[i, t, t],
                lambda t, e, i=i, needed=needed: needed[t] + seen.reread[i, t, e],
            )
    return held


def rules(seen: Talks, single: int) -> dict[str, tuple[Ints, NDArray[np.bool_] | None]]:
    """Per rule the picks (n, T), and whether the category that was read is the question's."""
    rows, turns = np.arange(len(seen.about))[:, None], np.arange(N_TURNS)[None, :]
    # a question's own turn: the first one that is about it
    asked = np.array([[list(row).index(q) for q in row] for row in seen.about])

    def by(held: Ints) -> tuple[Ints, NDArray[np.bool_] | None]:
        right = None if seen.right is None else seen.right[rows, held]
        return seen.utility[rows, turns, held].argmax(axis=-1), right

    sticky = {f"sticky {margin:g}": by(held_turns(seen, margin)) for margin in MARGINS}
    flat = {f"sticky {m:g}, flat": by(held_turns(seen, m, brief=False)) for m in FLAT}
    return {
        "last": by(np.broadcast_to(turns, seen.about.shape)),
        "all": (seen.joined.argmax(axis=-1), seen.joined_right),
        **sticky,
        **flat,
        "told which question": by(asked),
        "best single": (np.full(seen.about.shape, single), None),
    }


def values(seen: Talks, picks: Ints) -> Floats:
    """(n, T) outcome of each turn less what it cost; who takes over reads the history again."""
    chosen = picks[..., None]
    stayed = np.take_along_axis(seen.value, chosen, axis=-1)[..., 0]
    reread = np.take_along_axis(seen.reread, chosen, axis=-1)[..., 0]
    return stayed - np.where(switched(picks), reread, 0.0)


def switched(picks: Ints) -> NDArray[np.bool_]:
    """(n, T) whether another expert answered the turn before."""
    return np.hstack([np.zeros((len(picks), 1), dtype=bool), picks[:, 1:] != picks[:, :-1]])


def measured(seen: Talks, picks: Ints, right: NDArray[np.bool_] | None) -> dict[str, Any]:
    """Value and switch rate, in all and per kind."""
    value, switch = values(seen, picks), switched(picks)
    report: dict[str, Any] = {
        "score": round(float(value.mean()), 4),
        # a switch is possible from the second turn on
        "switch_rate": round(float(switch[:, 1:].mean()), 4),
        "reread_tokens": round(float((seen.tokens * switch)[:, 1:].mean()), 1),
        "category_right": None if right is None else round(float(right.mean()), 4),
    }
    for kind in KINDS:
        mine = seen.kinds == kind
        report[kind] = {
            "score": round(float(value[mine].mean()), 4),
            "switch_rate": round(float(switch[mine, 1:].mean()), 4),
        }
    return report


def resampled(about: Ints, gains: Floats, rng: np.random.Generator) -> Floats:
    """(n_resamples, n_columns) means of the gains (n, T, n_columns), a bootstrap over questions.

    Questions and not conversations are drawn: one question occurs in several of these. Columns
    share the draws.
    """
    counts = np.bincount(about.ravel())
    sums = np.zeros((len(counts), gains.shape[-1]))
    np.add.at(sums, about.ravel(), gains.reshape(-1, gains.shape[-1]))
    sums, counts = sums[counts > 0], counts[counts > 0]
    draws = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), N_RESAMPLES)
    means: Floats = (draws @ sums) / (draws @ counts)[:, None]
    return means


def difference(mean: float, draws: Floats) -> dict[str, Any]:
    """A mean and its 95 % interval."""
    low, high = np.quantile(draws, [0.025, 0.975]).round(4).tolist()
    return {"mean": round(mean, 4), "ci95": [low, high]}


def compared(seen: Talks, single: int, drawn: dict[str, list[Any]]) -> dict[str, Any]:
    """Every rule measured, with its differences to ``last`` and to ``all``.

    What the bootstrap drew of the differences over all kinds is added to ``drawn``.
    """
    found = rules(seen, single)
    document = {name: measured(seen, picks, right) for name, (picks, right) in found.items()}
    value = {name: values(seen, picks) for name, (picks, _) in found.items()}
    pairs = [(name, other) for name in found for other in ("last", "all") if name != other]
    gains = np.stack([value[name] - value[other] for name, other in pairs], axis=-1)
    for part in ("all kinds", *KINDS):
        mine = (seen.kinds == part) | (part == "all kinds")
        draws = resampled(seen.about[mine], gains[mine], np.random.default_rng(SEED))
        for k, (name, other) in enumerate(pairs):
            mean = float(gains[mine, :, k].mean())
            document[name].setdefault(f"less {other}", {})[part] = difference(mean, draws[:, k])
            if part == "all kinds":
                drawn.setdefault(f"{name} less {other}", []).append((mean, draws[:, k]))
    return document


def pooled(drawn: dict[str, list[Any]], rng: np.random.Generator) -> dict[str, Any]:
    """The differences, each table counting alike; tables are drawn independently."""
    document = {}
    for name, parts in drawn.items():
        draws = np.mean([rng.permutation(each) for _, each in parts], axis=0)
        document[name] = difference(float(np.mean([mean for mean, _ in parts])), draws)
    return document


def agreement(table: Table, seen: Talks, margin: float) -> float:
    """Share of a few conversations in which `Router.decide` picks what was picked here."""
    specs = {spec.id: replace(spec, context_tokens=10**9) for spec in table.specs}
    n = len(seen.texts)
    same = []
    picks = {
        "last": seen.utility[:, -1, -1].argmax(axis=-1),
        "all": seen.joined[:, -1].argmax(axis=-1),
        "sticky": seen.utility[np.arange(n), -1, held_turns(seen, margin)[:, -1]].argmax(axis=-1),
    }
    rule: TurnRule
    for rule in ("last", "all", "sticky"):
        router = Router(load_default(), table.artefact, specs, turns=rule, switch_margin=margin)
        for i in range(0, n, max(1, n // N_CHECKED)):
            said = [Message("user", text) for text in seen.texts[i]]
            messages = [m for turn in said for m in (turn, Message("assistant", ANSWER))][:-1]
            request = Request(tuple(messages), Policy("bench", prices=table.prices))
            same.append(router.decide(request).expert_id == table.specs[int(picks[rule][i])].id)
    return round(float(np.mean(same)), 4)


# ---- tables


def tables(folder: Path) -> Iterator[Table | str]:
    """The trained tables, or the name of one that is absent."""
    config = load_config(DATA / "coe.yaml")
    own = Outcomes.read(ROOT / "data" / "outcomes" / "embedded.parquet")
    artefact = train(own, load_default(), config.specs, features=MEANING_DIM)
    prices = load_policies(config.budgets)["default"].prices
    dev, test = (own.rows(own.splits == split) for split in ("dev", "test"))
    yield Table("embedded", False, artefact, artefact.experts, prices, dev, test)
    for name, (n_fit, experts) in TABLES.items():
        path = folder / f"{name}.parquet"
        if not path.exists():
            yield name
            continue
        outcomes = Outcomes.read(path)
        if experts:
            outcomes = only(outcomes, experts)
        outcomes = outcomes.rows(~np.isnan(outcomes.scores).any(axis=1))
        rows = np.random.default_rng(SEED).permutation(np.flatnonzero(outcomes.splits == "train"))
        splits = np.where(outcomes.splits == "train", "tune", "report").astype("<U6")
        splits[rows[:n_fit]] = "train"
        splits[rows[n_fit : n_fit + len(rows) // 10]] = "dev"  # tunes the thresholds
        resplit = replace(outcomes, splits=splits)
        artefact = train(resplit, load_default(), features=MEANING_DIM)
        tune = resplit.rows(np.isin(splits, ("tune", "dev")))
        report = resplit.rows(splits == "report")
        yield Table(name, True, artefact, artefact.experts, Prices(), tune, report)


def only(outcomes: Outcomes, experts: Sequence[str]) -> Outcomes:
    """The table of these experts' scores alone."""
    columns = [outcomes.expert_ids.index(name) for name in experts]
    parts = ("scores", "tokens", "latency_ms", "energy_j", "cost_usd", "retrieved_scores")
    kept = {part: getattr(outcomes, part)[:, columns] for part in parts}
    return replace(outcomes, expert_ids=tuple(experts), **kept)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--outcomes", type=Path, default=OUTCOMES, help="folder of the tables")
    parser.add_argument("--conversations", type=int, default=300, help="of each kind")
    options = parser.parse_args()
    started, n = time.perf_counter(), options.conversations
    document: dict[str, Any] = {
        "machine": calibration(),
        "seed": SEED,
        "n_conversations": dict.fromkeys(KINDS, n),
        "mix": MIX,
        "absent": [],
        "tables": {},
    }
    tuning: dict[str, dict[str, float]] = {}
    reports: list[tuple[Table, Talks]] = []
    drawn: dict[str, list[Any]] = {}
    for table in tables(options.outcomes):
        if isinstance(table, str):
            document["absent"].append(table)
            continue
        seen = talks(table, table.tune, TUNE_FOLLOW_UPS, n, SEED + 1)
        found = rules(seen, 0)
        value = {name: float(values(seen, picks).mean()) for name, (picks, _) in found.items()}
        tuning[table.name] = {
            name: round(value[name] - value["last"], 4)
            for name in value
            if name not in ("last", "best single")
        }
        reports.append((table, talks(table, table.report, REPORT_FOLLOW_UPS, n, SEED + 2)))
    names = next(iter(tuning.values()))
    mean = {name: float(np.mean([gains[name] for gains in tuning.values()])) for name in names}
    margin = max(MARGINS, key=lambda m: mean[f"sticky {m:g}"])
    document["margin"] = {
        "chosen": margin,
        "default": SWITCH_MARGIN,
        "gain_on_last_when_tuning": tuning,
        "mean": {name: round(gain, 4) for name, gain in mean.items()},
    }
    for table, seen in reports:
        single = int((table.tune.scores.mean(axis=0) - unpriced(table)).argmax())
        document["tables"][table.name] = {
            "n_train": table.artefact.training["n_train"],
            "n_questions": len(table.report.prompts),
            "priced": table.prices != Prices(),
            "declined": table.artefact.expectation.incumbent is not None,
            "agrees_with_router": agreement(table, seen, margin),
            "rules": compared(seen, single, drawn),
        }
    document["mean_over_tables"] = pooled(drawn, np.random.default_rng(SEED))
    document["seconds"] = round(time.perf_counter() - started, 1)
    print(json.dumps(document, indent=2))


def unpriced(table: Table) -> Floats:
    """(E,) what an answer costs on average at the table's prices, for the best single expert."""
    if table.prices == Prices():
        return np.zeros(len(table.specs))
    n_tokens = np.array([[estimated_tokens(prompt)] for prompt in table.tune.prompts])
    return paid(table, n_tokens[:, 0], table.tune.tokens).mean(axis=0)


if __name__ == "__main__":
    main()
