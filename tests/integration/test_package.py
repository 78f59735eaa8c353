"""The wheel: what it holds, what it leaves in an environment, and that it works there."""

import json
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPENDENCIES = Path(sysconfig.get_paths()["purelib"])
ROOMS = ("routers", "optimizer", "kernels", "services")
HELD = (
    "coe/py.typed",
    "coe/__main__.py",
    "coe/routers/category.py",
    "coe/optimizer/select.py",
    "coe/kernels/gating.py",
    "coe/services/gateway.py",
    "coe/data/coe.yaml",
    "coe/data/budgets.yaml",
    "coe/data/weights.json",
    "coe/data/artefact/manifest.json",
    "coe/data/artefact/arrays.safetensors",
    "coe/data/static-minilm/manifest.json",
    "coe/data/static-minilm/table.safetensors",
    "coe/data/static-minilm/tokenizer.json",
)

pytestmark = pytest.mark.package


def run(*command: object, cwd: Path = ROOT, **environment: str) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def uv() -> str:
    """uv names itself to the commands it runs, whether or not it is on the path."""
    found = os.environ.get("UV") or shutil.which("uv")
    assert found, "uv is not on the path"
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the isolated build that a release would use."""
    out = tmp_path_factory.mktemp("wheel")
    run(uv(), "build", "--quiet", "--wheel", "--out-dir", out)
    (built,) = out.glob("*.whl")
    return built


class Environment:
    """A virtual environment that had nothing in it before the wheel."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        run(uv(), "venv", "--quiet", "--python", sys.executable, folder)
        (self.site,) = folder.glob("lib/python*/site-packages")
        self.scripts = folder / "bin"
        before = set(os.listdir(self.site))
        python = self.scripts / "python"
        run(uv(), "pip", "install", "--quiet", "--no-deps", "--python", python, wheel)
        self.gained = set(os.listdir(self.site)) - before

    def run(self, *command: object) -> str:
        """Output of a program here, which borrows its dependencies from the test environment."""
        path = os.pathsep.join([str(self.site), str(DEPENDENCIES)])
        program, *rest = command
        # elsewhere than the checkout, which Python would find first
        return run(self.scripts / str(program), *rest, cwd=self.scripts, PYTHONPATH=path)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    return Environment(tmp_path_factory.mktemp("clean") / "venv", wheel)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
        names = {entry.filename for entry in entries}
        assert archive.testzip() is None
    tops = {name.partition("/")[0] for name in names}
    (info,) = tops - {"coe"}
    assert info.endswith(".dist-info")
    assert set(HELD) <= names
    assert f"{info}/licenses/LICENSE" in names
    assert not [name for name in names if name.endswith((".pth", ".pyc", ".ipynb", ".gguf"))]
    assert not [e.filename for e in entries if stat.S_ISLNK(e.external_attr >> 16)]


def test_the_wheel_holds_every_module(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    rooms = {f"coe/{p.relative_to(ROOT)}" for r in ROOMS for p in (ROOT / r).rglob("*.py")}
    hall = {str(path.relative_to(ROOT)) for path in (ROOT / "coe").rglob("*.py")}
    assert rooms | hall == {name for name in names if name.endswith(".py")}


def test_an_environment_gains_one_import_name(environment: Environment) -> None:
    (info,) = environment.gained - {"coe"}
    assert info.startswith("coe_router-")
    assert info.endswith(".dist-info")
    assert "coe" in environment.gained
    program = "import importlib.util as u; print([r for r in {} if u.find_spec(r)])"
    assert environment.run("python", "-c", program.format(ROOMS)).strip() == "[]"


def test_the_installed_package_is_the_one_that_runs(environment: Environment) -> None:
    where = environment.run("python", "-c", "import coe; print(coe.__file__)").strip()
    assert Path(where).is_relative_to(environment.site)
    version = environment.run("python", "-c", "import coe; print(coe.__version__)").strip()
    assert environment.run("python", "-m", "coe", "--version").strip() == f"coe {version}"
    assert environment.run("coe", "--version").strip() == f"coe {version}"


def test_the_installed_package_decides(environment: Environment, tmp_path: Path) -> None:
    """With the shipped artefact; its experts stand elsewhere, so that no weights are needed."""
    manifest = json.loads((environment.site / "coe/data/artefact/manifest.json").read_bytes())
    ids = [expert["id"] for expert in manifest["experts"]]
    experts = [
        {"id": name, "kind": "http", "base_url": "http://127.0.0.1:9/v1", "device": "elsewhere"}
        for name in ids
    ]
    device = {"ttft_b_ms": 1, "decode_tokens_per_s": 100, "prefill_w": 10, "decode_w": 10}
    config = tmp_path / "coe.yaml"
    config.write_text(json.dumps({"devices": {"elsewhere": device}, "experts": experts}))
    out = environment.run("coe", "route", "What is 17 * 6?", "--config", config, "--json")
    decision = json.loads(out)
    assert decision["status"] == "optimal"
    # the artefact also knows modes of several experts
    others = {other["id"] for other in decision["alternatives"]}
    assert [expert["id"] for expert in decision["experts"]] == [
        name for name in ids if name not in others
    ]
    assert len(others & set(ids)) == len(ids) - 1
