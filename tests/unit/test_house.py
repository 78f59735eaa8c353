"""The rules of the house that a program can check."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import coe

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("coe", "routers", "optimizer", "kernels", "services")
# coe/routers and its siblings are links: resolving leaves one path to every file
SOURCES = sorted({path.resolve() for room in ROOMS for path in (ROOT / room).rglob("*.py")})
TREES = {path.relative_to(ROOT): ast.parse(path.read_text()) for path in SOURCES}

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
PICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
PICKLED = re.compile(r"\b(?:pickle|joblib|dill|marshal|torch)\.loads?\b|allow_pickle\s*=\s*True")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions() -> Iterator[tuple[Path, Function]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield path, node


def length(function: Function) -> int:
    """Lines from ``def`` to the end, without the docstring: a contract may be long."""
    end = function.end_lineno or function.lineno
    lines = end - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def is_broad(handler: ast.ExceptHandler) -> bool:
    """Whether a handler catches what it cannot know.

    ``BaseException`` is allowed where the handler only tidies up and raises it again.
    """
    if handler.type is None:
        return True
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    last = handler.body[-1]
    raises_again = isinstance(last, ast.Raise) and last.exc is None
    return "Exception" in names or ("BaseException" in names and not raises_again)


def imported(tree: ast.AST) -> set[str]:
    """Top-level names of the packages that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_every_room_is_looked_at() -> None:
    assert {path.parts[0] for path in TREES} == set(ROOMS)


def test_no_module_is_long() -> None:
    sizes = {path: len((ROOT / path).read_text().splitlines()) for path in TREES}
    assert {path: n for path, n in sizes.items() if n > MAX_MODULE_LINES} == {}


def test_no_function_is_long() -> None:
    sizes = {f"{path}:{f.lineno} {f.name}": length(f) for path, f in functions()}
    assert {name: n for name, n in sizes.items() if n > MAX_FUNCTION_LINES} == {}


def test_no_handler_is_broad() -> None:
    broad = [
        f"{path}:{node.lineno}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and is_broad(node)
    ]
    assert broad == []


def test_nothing_prints_outside_the_command_line() -> None:
    printing = [
        f"{path}:{node.lineno}"
        for path, tree in TREES.items()
        if not path.is_relative_to("services/cli")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert printing == []


def test_nothing_is_unpickled() -> None:
    assert {path: found for path, t in TREES.items() if (found := imported(t) & PICKLERS)} == {}
    texts = {path: (ROOT / path).read_text() for path in TREES}
    assert [path for path, text in texts.items() if PICKLED.search(text)] == []


def test_no_module_imports_a_room_by_its_folder() -> None:
    assert {path: found for path, t in TREES.items() if (found := imported(t) & {*ROOMS[1:]})} == {}


@pytest.mark.parametrize("room", ROOMS[1:])
def test_a_room_is_reached_by_a_relative_link(room: str) -> None:
    link = ROOT / "coe" / room
    assert link.is_symlink()
    assert link.readlink() == Path("..") / room


def test_the_newest_heading_of_the_changelog_is_this_version() -> None:
    headings = re.findall(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert next(heading for heading in headings if heading != "Unreleased") == coe.__version__


def test_imports_go_downwards() -> None:
    """The contracts of pyproject.toml, by the command that people use."""
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
