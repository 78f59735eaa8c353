"""A drawn picture, and how it gets into a page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape

PLOTS = ("pareto", "experts", "calibration", "confusion", "coverage", "retrieval")
"""The names of all pictures that a report can have, in its order."""

_TAG = re.compile(r"<[^>]*>")
_REFERENCE = re.compile(r'(\sid="|href="#|url\(#)')
_VIEW_BOX = re.compile(r'viewBox="0 0 ([0-9.]+) [0-9.]+"')

# at the first small print can still be read, from the second on it is only larger
_LEAST_SCALE, _MOST_SCALE = 1.0, 1.7


@dataclass(frozen=True, slots=True)
class Picture:
    """A plot in two formats.

    ``name`` ends the names of its files; ``svg`` is a whole document; ``note`` says what did not
    fit into it, empty if everything did.
    """

    name: str
    png: bytes
    svg: str
    note: str = ""

    def inline(self, label: str) -> str:
        """The picture as part of an HTML page, with ``label`` for those who do not see it.

        It is as wide as the page, within the scales at which it can be read. Ids begin with the
        picture's name, so that several pictures fit into one page.
        """
        start = self.svg.index("<svg")
        end = self.svg.index(">", start) + 1
        view_box = _VIEW_BOX.search(self.svg, start, end)
        if view_box is None:
            raise ValueError(f"the SVG of {self.name} has no viewBox at its origin")
        width = float(view_box[1])
        body = _TAG.sub(
            lambda tag: _REFERENCE.sub(rf"\g<1>{self.name}-", tag[0]), self.svg[end:].strip()
        )
        style = f"min-width:{width * _LEAST_SCALE:.0f}px;max-width:{width * _MOST_SCALE:.0f}px"
        opening = f'<svg {view_box[0]} role="img" aria-label="{escape(label)}" style="{style}">'
        return opening + body
