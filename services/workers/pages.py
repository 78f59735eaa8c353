"""One page of metrics made of several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_LARGEST = frozenset(
    {"coe_build_info", "coe_config_refused", "coe_meter_joules", "process_max_fds"}
)
_EARLIEST = ("_created", "process_start_time_seconds")


def merged(pages: Sequence[str]) -> str:
    """The page that says of all processes what each says of itself: sums.

    Of machines' meters, refused files and what all have alike the largest figure holds, of times
    of creation the earliest.
    """
    found: dict[str, dict[str, float | None]] = {}
    for page in pages:
        for family, line in _lines(page):
            known = found.setdefault(family, {})
            if line.startswith("#"):
                known[line] = None
                continue
            name, _, figure = line.rpartition(" ")
            before = known.get(name)
            known[name] = float(figure) if before is None else _both(family, before, float(figure))
    return "".join(
        f"{name}\n" if value is None else f"{name} {value!r}\n"
        for lines in found.values()
        for name, value in lines.items()
    )


def departed(page: str) -> str:
    """What remains of the page of a process that has ended: what it counted, not how it was."""
    momentary = {line.split()[2] for _, line in _lines(page) if line.endswith(" gauge")}
    return "".join(f"{line}\n" for family, line in _lines(page) if family not in momentary)


def _both(family: str, one: float, other: float) -> float:
    if family in _LARGEST:
        return max(one, other)
    return min(one, other) if family.endswith(_EARLIEST) else one + other


def _lines(page: str) -> Iterator[tuple[str, str]]:
    """The lines of a page, each with the name of the metric whose heading it is under."""
    family = ""
    # the other signs by which Unicode ends a line may stand in the value of a label
    for line in filter(None, page.split("\n")):
        if line.startswith("# HELP "):
            family = line.split()[2]
        yield family, line
