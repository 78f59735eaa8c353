"""Faults that nobody foresaw: the functions that some work enters fail at their beginning."""

import sys
from pathlib import Path

import coe

HOUSE = Path(coe.__file__).resolve().parent


class SurpriseError(Exception):
    """Nobody foresees it."""


class Steps:
    """Notes the functions of some rooms that are entered, each with the line that calls it.

    Parameters
    ----------
    rooms : folders below ``coe``; "" is that itself.
    but : names of functions that are left out.
    fails : the one that fails at its beginning, the first time; ``None``: none does.
    """

    def __init__(self, rooms, but=(), fails=None):
        self.folders, self.but, self.fails = {HOUSE / room for room in rooms}, but, fails
        self.seen, self.struck = {}, False

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.entered)
        return self

    def __exit__(self, *error):
        sys.settrace(self.before)

    def entered(self, frame, event, arg):
        code, caller = frame.f_code, frame.f_back
        # a coroutine that goes on is somewhere else
        if frame.f_lineno != code.co_firstlineno or code.co_name.startswith("<"):
            return None
        if Path(code.co_filename).parent not in self.folders or code.co_qualname in self.but:
            return None
        step = (code.co_qualname, caller.f_code.co_qualname, caller.f_lineno)
        self.seen.setdefault(step)
        return self.begun if step == self.fails and not self.struck else None

    def begun(self, frame, event, arg):
        if event == "line" and not self.struck:
            self.struck = True
            raise SurpriseError(self.fails)
        return self.begun
