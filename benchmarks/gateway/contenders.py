"""Who is measured: ours, two gateways that users would take instead, and what has none."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import yaml
from processes import free_port, running

import coe
from coe.config import DATA

_HERE = Path(__file__).parent
_CACHE = Path(tempfile.gettempdir()) / "coe-benchmark-gateways"
_KEY = "sk-0123456789abcdef0123456789abcdef"
_RIVALS = {"litellm": "litellm[proxy]>=1.100", "sglang-router": "sglang-router>=0.3.2"}


@dataclass(frozen=True, slots=True)
class Contender:
    """A server that answers chats.

    Parameters
    ----------
    model : what is asked for there.
    key : bearer token; "": none.
    """

    name: str
    port: int
    pid: int
    model: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """All contenders, their versions, and why somebody is missing."""

    contenders: dict[str, Contender]
    versions: dict[str, str]
    missing: dict[str, str]


def start(stack: ExitStack, folder: Path, stub_port: int, stub_pid: int, core: int) -> Field:
    """Everybody, on this core, in front of the stub that is at the port.

    ``direct`` is the stub itself, which stays where it is.
    """
    field = Field({"direct": Contender("direct", stub_port, stub_pid, "stub")}, {}, {})
    field.versions.update(coe=coe.__version__, python=sys.version.split()[0])
    for package in ("httptools", "orjson", "pydantic", "starlette", "uvicorn", "uvloop"):
        field.versions[package] = importlib.metadata.version(package)
    port = free_port()
    echo = [sys.executable, str(_HERE / "limits.py"), "echo", str(port)]
    pid = stack.enter_context(running(echo, port, core, folder / "echo.log"))
    field.contenders["echo"] = Contender("echo", port, pid, "stub")
    port = free_port()
    serve = [sys.executable, "-m", "coe", "serve", "--config", str(ours(folder, stub_port, port))]
    pid = stack.enter_context(running(serve, port, core, folder / "coe.log"))
    field.contenders["pinned"] = Contender("pinned", port, pid, "smollm2-135m")
    field.contenders["routed"] = Contender("routed", port, pid, "auto")
    commands: dict[str, Callable[[Path, int, int], list[str]]] = {
        "litellm": lambda bin, at, port: _litellm(folder, bin, at, port),
        "sglang-router": lambda bin, at, port: _sglang_router(bin, at, port),
    }
    for name, command in commands.items():
        try:
            bin = _environment(name)
            port = free_port()
            env = {
                "PATH": f"{bin}:{os.environ['PATH']}",
                "LITELLM_MASTER_KEY": _KEY,
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "LITELLM_TELEMETRY": "False",
            }
            log = folder / f"{name}.log"
            pid = stack.enter_context(running(command(bin, stub_port, port), port, core, log, env))
        except (OSError, subprocess.SubprocessError, TimeoutError) as error:
            field.missing[name] = f"{type(error).__name__}: {error}"[:600]
            continue
        key = _KEY if name == "litellm" else ""
        field.contenders[name] = Contender(name, port, pid, "stub", key)
        field.versions[name] = _version(name, bin)
    return field


def ours(folder: Path, stub_port: int, port: int) -> Path:
    """A ``coe.yaml`` with the stub under the names of the shipped artefact's experts."""
    shipped = yaml.safe_load((DATA / "coe.yaml").read_text())
    url = f"http://127.0.0.1:{stub_port}/v1"
    experts = [
        {"id": e["id"], "kind": "http", "device": e["device"], "base_url": url}
        for e in shipped["experts"]
    ]
    document = {
        "gateway": {"port": port},
        "artefact": str(DATA / "artefact"),
        "budgets": str(DATA / "budgets.yaml"),
        "devices": shipped["devices"],
        "experts": experts,
    }
    path = folder / "coe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def _litellm(folder: Path, bin: Path, stub_port: int, port: int) -> list[str]:
    parameters = {
        "model": "openai/stub",
        "api_base": f"http://127.0.0.1:{stub_port}/v1",
        "api_key": "none",
    }
    document = {"model_list": [{"model_name": "stub", "litellm_params": parameters}]}
    path = folder / "litellm.yaml"
    path.write_text(yaml.safe_dump(document))
    flags = ["--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
    return [str(bin / "litellm"), *flags, "--num_workers", "1"]


def _sglang_router(bin: Path, stub_port: int, port: int) -> list[str]:
    worker = f"http://127.0.0.1:{stub_port}"
    flags = ["--worker-urls", worker, "--policy", "round_robin"]
    listening = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    return [str(bin / "python"), "-m", "sglang_router.launch_router", *flags, *listening]


def _version(name: str, bin: Path) -> str:
    program = f"import importlib.metadata as m; print(m.version({name!r}))"
    done = subprocess.run([str(bin / "python"), "-c", program], capture_output=True, check=True)
    return done.stdout.decode().strip()


def _environment(name: str) -> Path:
    """Where the programs of a rival's own environment are, which is made when it is not there.

    Raises
    ------
    OSError, subprocess.SubprocessError
        It cannot be.
    """
    uv = shutil.which("uv")
    if uv is None:
        raise FileNotFoundError("uv, which makes the environments of the others, is not installed")
    home = _CACHE / name
    if not (home / "installed").exists():
        _CACHE.mkdir(exist_ok=True)
        for command in (
            [uv, "venv", "--clear", "--python", sys.executable, str(home)],
            [uv, "pip", "install", "--python", str(home), "--compile-bytecode", _RIVALS[name]],
        ):
            subprocess.run(command, check=True, capture_output=True, timeout=300)
        (home / "installed").write_text(_RIVALS[name])
    return home / "bin"
