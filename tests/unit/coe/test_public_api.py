"""The package as its users meet it."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import coe

ROOT = Path(coe.__file__).parent.parent
HEAVY = (
    "aiohttp",
    "httpx",
    "numpy",
    "pip",
    "prometheus_client",
    "pyarrow",
    "pydantic",
    "rich",
    "safetensors",
    "scipy",
    "sklearn",
    "starlette",
    "tokenizers",
    "typer",
    "uvicorn",
    "xllamacpp",
    "yaml",
)


def modules_after(statement):
    """Modules in a fresh interpreter that has run ``statement``."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    run = [sys.executable, "-c", code]
    return set(subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())


def test_the_list_of_names_is_sorted_and_without_repetition():
    assert coe.__all__ == sorted(set(coe.__all__))


def test_the_list_of_names_is_what_can_be_imported():
    everything: dict[str, object] = {}
    exec("from coe import *", everything)
    assert set(everything) - {"__builtins__"} == set(coe.__all__)


def test_every_noun_that_the_package_holds_is_listed():
    nouns = {
        name
        for name, value in vars(coe).items()
        if isinstance(value, type) and value.__module__.startswith("coe.")
    }
    assert nouns <= set(coe.__all__)


def test_the_router_is_found_on_first_use():
    assert coe.Router is importlib.import_module("coe.router").Router


def test_another_name_is_refused_as_usual():
    with pytest.raises(AttributeError, match="'coe' has no attribute 'Rooter'"):
        coe.Rooter  # noqa: B018


def test_import_coe_is_light():
    assert not modules_after("import coe") & set(HEAVY)


@pytest.mark.parametrize("folder", ["kernels", "optimizer", "routers", "services"])
def test_a_top_level_folder_is_reached_through_a_relative_link(folder):
    link = ROOT / "coe" / folder
    assert link.is_symlink()
    assert link.readlink() == Path("..") / folder
    assert link.resolve() == ROOT / folder


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "coe" / "py.typed").exists()
