"""Tests that go by real time: one process runs them, and what a busy machine broke is run again."""

import gc
from collections import Counter

import pytest
from xdist.scheduler import LoadScopeScheduling

TIMED = (
    *("access", "answers_end", "bad_inputs", "descriptors", "drain", "energy", "fleet"),
    *("observing", "resilience", "simulation", "workers"),
)
REAL_TIME = ("tests/faults/", *(f"tests/integration/test_{name}.py" for name in TIMED))


class RealTimeApart(LoadScopeScheduling):
    """What goes by real time is run by one process; every other file by whoever is free."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "real time" if path.startswith(REAL_TIME) else path


class AgainAfterCrash:
    """A test that hangs takes its process with it; another one tries it once more."""

    def __init__(self) -> None:
        self._crashed: set[str] = set()

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        # what it was to run is handed out again anyway, this test with it
        if crashitem not in self._crashed:
            self._crashed.add(crashitem)
            report.outcome = "rerun"  # type: ignore[assignment]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(AgainAfterCrash())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # of tests that share a name, only the first would be run by `RealTimeApart`
    twice = [name for name, n in Counter(item.nodeid for item in items).items() if n > 1]
    assert not twice, f"tests that share a name: {twice}"
    for item in items:
        if item.nodeid.startswith(REAL_TIME):
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_collection_finish() -> None:
    # a million objects: to look through them keeps experts and callers in this process for 0.7 s
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log) -> LoadScopeScheduling:
    return RealTimeApart(config, log)
