"""The documents name everything that the code has, and nothing that is not there."""

import ast
import importlib.util
import inspect
import json
import re
import time
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from coe.budgets import Budgets, load_policies
from coe.config import Config, GatewaySection, load_config
from coe.core import Estimate
from coe.decision import Receipt
from coe.errors.callers import InfeasibleError, RequestError, UnknownExpertError
from coe.services.gateway import Gateway
from coe.services.observing.metrics import Metrics
from coe.services.wire import answers
from coe.services.wire.chat import ChatBody, decision_document

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = (ROOT / "docs/configuration.md").read_text()
HTTP = (ROOT / "docs/http.md").read_text()
OBSERVABILITY = (ROOT / "docs/observability.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The pydantic models that an annotation mentions, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def fields_of(model: type[BaseModel]) -> set[tuple[str, FieldInfo]]:
    """Every field of a model and of the models in it."""
    found: set[tuple[str, Any]] = set()
    for name, info in model.model_fields.items():
        found.add((name, info))
        for inner in models_in(info.annotation):
            found |= fields_of(inner)
    return found


def rows(text: str, name: str) -> list[list[str]]:
    """Cells of the table rows whose first cell is this name."""
    lines = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def stated(default: Any) -> str | None:
    """How the document states a default; ``None`` where it may say it in words."""
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, str):
        return f"`{default}`" if default else "empty"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int | float):
        return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
    return "none" if default is None else None


SETTINGS = sorted(
    {(name, stated(info.default)) for m in (Config, Budgets) for name, info in fields_of(m)},
    key=str,
)


@pytest.mark.parametrize(("name", "default"), SETTINGS)
def test_every_setting_is_documented_with_its_default(name: str, default: str | None) -> None:
    found = rows(CONFIGURATION, name)
    assert found, f"{name} has no row in docs/configuration.md"
    assert default is None or default in {cells[2] for cells in found}


def test_nothing_else_is_documented_as_a_setting() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|(?:[^|\n]*\|){3}", CONFIGURATION, re.M))
    assert named == {name for name, _ in SETTINGS}


def test_the_examples_are_valid(tmp_path: Path) -> None:
    for text in re.findall(r"```yaml\n(.*?)```", CONFIGURATION, re.S):
        (tmp_path / text.split()[1]).write_text(text)
    assert load_policies(load_config(tmp_path / "coe.yaml").budgets).keys() == {"default", "frugal"}
    assert len(load_config(tmp_path / "free.yaml").experts) == 4


def test_every_field_of_a_request_is_documented() -> None:
    missing = {n for n, _ in fields_of(ChatBody) if not re.search(rf"`(?:\w+\.)?{n}`", HTTP)}
    assert missing <= {"budget", "experts"}


def test_every_figure_is_documented() -> None:
    figures = [*(f.name for f in fields(Receipt)), *Estimate._fields]
    assert [name for name in figures if f"`{name}`" not in HTTP] == []


def test_every_field_of_a_decision_is_documented() -> None:
    written = re.findall(r'"(\w+)"(?::|\] =)', inspect.getsource(decision_document))
    assert "alternatives" in written
    assert {name for name in written if f"`{name}`" not in HTTP} <= {"id", "weight"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_table_is_one_piece(path: Path) -> None:
    lines = path.read_text().splitlines()
    begun = [n for n, line in enumerate(lines) if line[:1] == "|" and lines[n - 1][:1] != "|"]
    assert [lines[n] for n in begun if not lines[n + 1].startswith("|---")] == []


def test_every_code_of_a_refusal_is_documented() -> None:
    files = [*(ROOT / "coe").glob("**/*.py"), *(ROOT / "services").glob("**/*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text()))]
    raised = [n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == "RequestError"]
    given = [c.args[2] for c in raised if len(c.args) > 2]
    codes = {code.value for code in given if isinstance(code, ast.Constant)}
    assert len(codes) > 20
    assert [code for code in codes if f"`{code}`" not in HTTP] == []


def test_every_endpoint_is_documented() -> None:
    engine = SimpleNamespace(now=time.monotonic)
    runtime: Any = SimpleNamespace(config=SimpleNamespace(gateway=GatewaySection()), engine=engine)
    routes: Any = Gateway(runtime).app().routes
    served = {
        f"{method} {route.path.replace(':path', '')}"
        for route in routes
        for method in route.methods - {"HEAD"}
    }
    told = re.findall(r"^\| `((?:GET|POST|PUT) \S+)` \|", HTTP, re.M)
    assert sorted(told) == sorted(served)


def test_every_header_is_documented() -> None:
    used = set(re.findall(r"x-coe-[a-z-]+", inspect.getsource(answers)))
    assert used
    assert set(re.findall(r"x-coe-[a-z-]+", HTTP)) == used


@pytest.mark.parametrize("error", [RequestError, UnknownExpertError, InfeasibleError])
def test_the_usual_code_of_an_error_is_documented(error: type[RequestError]) -> None:
    assert f"`{inspect.signature(error).parameters['code'].default}`" in HTTP


def test_every_metric_is_documented() -> None:
    names = {family.name for family in Metrics().registry.collect()}
    (table,) = re.findall(r"## Metrics\n.*?(\| name .*?)\n\n", OBSERVABILITY, re.S)
    first = "".join(line.split(" | ")[0] for line in table.splitlines())
    assert names == set(re.findall(r"`(\w+)`", first))


def test_the_layers_are_those_of_the_contract() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = (c for c in pyproject["tool"]["importlinter"]["contracts"] if c["id"] == "layers")
    (chain,) = re.findall(r"^__main__ ->.*?(?=\n```)", ARCHITECTURE, re.M | re.S)
    assert [layer.strip() for layer in chain.split("->")] == contract["layers"]


def test_the_rooms_of_the_house_are_there() -> None:
    (tree,) = re.findall(r"## The house\n\n```\n(.*?)```", ARCHITECTURE, re.S)
    rooms = [ROOT / name for name in re.findall(r"^(\w+/)", tree, re.M)]
    hall = [ROOT / "coe" / name for name in re.findall(r"^  (\S+)", tree, re.M)]
    assert rooms
    assert hall
    assert [path for path in rooms + hall if not path.exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.S)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [t.partition("#")[0] for t in targets if "://" not in t and not t.startswith("#")]
    assert [target for target in local if not (document.parent / target).exists()] == []


def test_the_tables_of_the_routing_benchmark_are_those_of_its_results() -> None:
    folder = ROOT / "benchmarks" / "routing"
    found = importlib.util.spec_from_file_location("summary", folder / "summary.py")
    assert found is not None
    assert found.loader is not None
    summary = importlib.util.module_from_spec(found)
    found.loader.exec_module(summary)
    pools = json.loads((folder / "results.json").read_text())["pools"]
    for file, tables in summary.TABLES.items():
        text = (folder / file).read_text(encoding="utf-8")
        for name, table in tables.items():
            assert summary.written(text, name, table(pools)) == text
