"""Where names go so that none hides another: geometry alone, in points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

Point = tuple[float, float]
Size = tuple[float, float]

_DISTANCES = (5.0, 11.0, 18.0, 26.0, 36.0, 48.0, 64.0)
_STRAIGHT = ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))
_SLANTING = tuple(
    (across * a, up * b)
    for a, b in ((0.7, 0.7), (0.4, 0.9), (0.9, 0.4))
    for up in (1, -1)
    for across in (1, -1)
)
_DOT_RADIUS = 4.0

APART = 8.0
"""Distance from which a line has to lead from a point to its name."""


class Box(NamedTuple):
    """A rectangle with its sides along the axes."""

    left: float
    bottom: float
    right: float
    top: float

    @classmethod
    def about(cls, x: float, y: float, radius: float) -> Box:
        """The square with its centre at (x, y)."""
        return cls(x - radius, y - radius, x + radius, y + radius)

    def overlaps(self, other: Box) -> bool:
        """Whether the two share more than an edge."""
        across = self.left < other.right and other.left < self.right
        return across and self.bottom < other.top and other.bottom < self.top

    def within(self, room: Box) -> bool:
        """Whether nothing of it is outside ``room``."""
        inside = room.left <= self.left and self.right <= room.right
        return inside and room.bottom <= self.bottom and self.top <= room.top

    def nearest(self, point: Point) -> Point:
        """The point of it that is nearest to ``point``."""
        x, y = point
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)


class Names:
    """Finds places for names in ``room`` that hide neither each other nor what is to be seen.

    What is to be seen comes first: `keep_dots`, `keep_line`, `of_level`. Every place that is
    handed out is taken from then on; ``None`` says that there is none left.
    """

    def __init__(self, room: Box) -> None:
        self._room = room
        self._solid: list[Box] = []  # dots and names
        self._lines: list[Box] = []

    def keep_dots(self, points: Iterable[Point]) -> None:
        """No name will cover these points."""
        self._solid += [Box.about(*point, _DOT_RADIUS) for point in points]

    def keep_line(self, points: Sequence[Point]) -> None:
        """No name will cover the line through these points; a line to a name may cross it."""
        for start, end in pairwise(points):
            self._lines += _between(start, end, 1.0)

    def of_level(self, y: float, size: Size) -> Box | None:
        """A place for the name of the level line through the room at ``y``."""
        self._lines.append(Box(self._room.left, y - 0.5, self._room.right, y + 0.5))
        return self._take(_along(self._room, y, size))

    def of_line(self, points: Sequence[Point], size: Size) -> Box | None:
        """A place for the name of a line, as near to the middle of the room as can be."""
        middle = (self._room.left + self._room.right) / 2
        ordered = sorted(points, key=lambda point: abs(point[0] - middle))
        return self._take(place for point in ordered for place in _around(point, size))

    def of_dot(self, point: Point, size: Size, important: bool = False) -> Box | None:
        """A place for the name of ``point``, as near as can be.

        The way to a far one passes through no other dot or name, unless ``important``, where
        that is better than no place at all.
        """
        found = self._take(_around(point, size), point)
        if found is None and important:
            found = self._take(_around(point, size))
        if found is not None and math.dist(point, found.nearest(point)) > APART:
            self._lines += _between(point, found.nearest(point), 0.5)
        return found

    def _take(self, places: Iterable[Box], start: Point | None = None) -> Box | None:
        for place in places:
            if not place.within(self._room) or _hits(place, self._solid + self._lines):
                continue
            if start is None or self._reachable(start, place):
                self._solid.append(place)
                return place
        return None

    def _reachable(self, point: Point, place: Box) -> bool:
        end = place.nearest(point)
        if math.dist(point, end) <= APART:
            return True
        here = Box.about(*point, 0.5)
        others = [box for box in self._solid if not box.overlaps(here)]
        return not any(_hits(step, others) for step in _between(point, end, 0.5))


def _hits(box: Box, others: Iterable[Box]) -> bool:
    return any(box.overlaps(other) for other in others)


def _between(start: Point, end: Point, radius: float) -> list[Box]:
    """Small boxes, a point apart or less, along a straight line."""
    (x, y), (x_end, y_end) = start, end
    n = max(math.ceil(math.dist(start, end)), 1)
    return [Box.about(x + k * (x_end - x) / n, y + k * (y_end - y) / n, radius) for k in range(n)]


def _around(point: Point, size: Size) -> Iterator[Box]:
    """Places near a point, the nearest first, to its right before its left."""
    (x, y), (width, height) = point, size
    for distance in _DISTANCES:
        for across, up in _STRAIGHT + _SLANTING:
            left = x + across * distance - (1 - _sign(across)) * width / 2
            bottom = y + up * distance - (1 - _sign(up)) * height / 2
            yield Box(left, bottom, left + width, bottom + height)


def _along(room: Box, y: float, size: Size) -> Iterator[Box]:
    """Places along a level line: at its ends and in its middle, above it, then below."""
    width, height = size
    middle = (room.left + room.right - width) / 2
    for bottom in (y + 2.0, y - height - 2.0):
        for left in (room.left + 3.0, room.right - width - 3.0, middle):
            yield Box(left, bottom, left + width, bottom + height)


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)
