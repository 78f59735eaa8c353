"""Which rails of a Jetson's sensors add up to it, with none counted twice."""

from __future__ import annotations

from collections.abc import Iterable

from coe.device import Scope

# a rail that feeds all others; VIN is the carrier board's, the others are the module's
_SUPPLIES = ("VIN", "VDD_IN", "POM_5V_IN")
# on AGX Orin the memory's rail is fed by the 5 V rail, which is measured too
_FED_BY = {"VDDQ_VDD2_1V8AO": "VIN_SYS_5V0"}


def counted_rails(labels: Iterable[str]) -> tuple[tuple[str, ...], Scope]:
    """The rails whose sum is what the machine draws, and its scope.

    The supply alone (``board``) where it is measured; else every rail that no other one of them
    feeds (``rail``: regulators and whatever has no sensor are missing). Not connected channels
    ("NC") do not count. Empty where nothing is left.
    """
    known = [label for label in labels if label and "NC" not in label]
    for supply in _SUPPLIES:
        if supply in known:
            return (supply,), "board"
    return tuple(sorted(label for label in known if _FED_BY.get(label) not in known)), "rail"
