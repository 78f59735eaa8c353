"""The two heat maps as tables: which rows and columns are shown, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coe.evaluation import Categories, Evaluation
from coe.services.report.labels import NAME_CHARS, labels

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

MOST = 40
"""Categories that fit into a picture."""

REST = "(all others)"


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of values in [0, 1].

    ``rows`` and ``columns`` are names as they are written, shortened where they are long;
    ``values`` (n_rows, n_columns); ``n`` (n_rows,) prompts; ``marked`` (n_rows,) the column of
    each row that stands out, -1 for none; ``n_hidden`` categories that are too many to show.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: Floats
    n: Indices
    marked: Indices
    n_hidden: int


def expert_grid(evaluation: Evaluation) -> Grid:
    """Mean score of every expert in the largest categories; marked is whom ``coe`` asks most.

    The most frequent category and the best expert come first; equals keep their order.
    """
    found = evaluation.categories
    rows = _largest(found)
    overall = found.n @ found.scores / max(int(found.n.sum()), 1)
    columns = np.argsort(-overall, kind="stable")
    chosen = found.chosen[np.ix_(rows, columns)]
    categories, experts = category_labels(found), labels(evaluation.expert_ids, NAME_CHARS)
    return Grid(
        rows=tuple(categories[found.names[i]] for i in rows),
        columns=tuple(experts[evaluation.expert_ids[k]] for k in columns),
        values=found.scores[np.ix_(rows, columns)],
        n=found.n[rows],
        marked=np.where(chosen.sum(axis=1) > 0, chosen.argmax(axis=1), -1),
        n_hidden=len(found.names) - len(rows),
    )


def confusion_grid(found: Categories) -> Grid:
    """As which category the prompts of each of the largest are recognised; marked is its own.

    Columns are in the order of the rows as far as they have the same names, then by how many
    prompts they get; those beyond `MOST` are summed up, and "general" comes last.
    """
    rows = _largest(found)
    names = [found.names[i] for i in rows]
    place = {name: k for k, name in enumerate(names)}
    *classes, general = range(len(found.predicted))
    mass = found.n @ found.confusion
    order = sorted(classes, key=lambda k: (place.get(found.predicted[k], len(place)), -mass[k]))
    shown, summed = order[:MOST], order[MOST:]
    confusion = found.confusion[rows]
    blocks = [confusion[:, shown]]
    columns = [found.predicted[k] for k in shown]
    if summed:
        blocks.append(confusion[:, summed].sum(axis=1, keepdims=True))
        columns.append(REST)
    blocks.append(confusion[:, [general]])
    columns.append(found.predicted[general])
    column = {name: k for k, name in enumerate(columns)}
    short = {REST: REST} | category_labels(found)
    return Grid(
        rows=tuple(short[name] for name in names),
        columns=tuple(short[name] for name in columns),
        values=np.hstack(blocks),
        n=found.n[rows],
        marked=np.array([column.get(name, -1) for name in names], dtype=np.int64),
        n_hidden=len(found.names) - len(rows),
    )


def category_labels(found: Categories) -> dict[str, str]:
    """What is written for each category, of the table and of the router."""
    return labels(list(dict.fromkeys((*found.names, *found.predicted))), NAME_CHARS)


def _largest(found: Categories) -> Indices:
    """The categories with most prompts, by falling number."""
    order: Indices = np.argsort(-found.n, kind="stable")[:MOST]
    return order
