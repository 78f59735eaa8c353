"""compose.yaml and the Dockerfile, read as data: no Docker engine is needed."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from coe.services.cli import app

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
FLEET = {"redis", "ray-head", "edge-worker"}


def instructions() -> list[tuple[str, str]]:
    """Instruction and arguments of each line of the Dockerfile, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def arguments(instruction: str) -> list[str]:
    return [rest for word, rest in instructions() if word == instruction]


def assert_is_a_call(words: list[str]) -> None:
    """``coe WORDS`` parses: the command exists and knows its options. Nothing is run."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    assert not hasattr(command, "commands"), f"coe {shlex.join(words)}: not a command"
    command.make_context("coe", rest)


def is_ours(service: dict[str, Any]) -> bool:
    return "build" in service


def test_the_services_are_there_and_the_unused_ones_wait_for_their_profile() -> None:
    assert {"gateway", *FLEET} <= SERVICES.keys()
    assert {name for name, s in SERVICES.items() if s.get("profiles") == ["fleet"]} == FLEET
    assert not any("profiles" in s for name, s in SERVICES.items() if name not in FLEET)


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_built_from_the_one_dockerfile_or_pinned(name: str) -> None:
    service = SERVICES[name]
    if is_ours(service):
        assert service["build"].keys() <= {"context", "args"}
        assert service["build"]["context"] == "."
        declared = {argument.partition("=")[0] for argument in arguments("ARG")}
        assert service["build"].get("args", {}).keys() <= declared
    else:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d[\w.-]*", service["image"])


def test_what_is_installed_beside_the_lock_is_pinned() -> None:
    for service in SERVICES.values():
        packages = service.get("build", {}).get("args", {}).get("EXTRA_PACKAGES", "")
        assert all("==" in package for package in packages.split())


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)
    assert "network_mode" not in SERVICES[name]


def test_only_the_gateway_is_published() -> None:
    assert [name for name, service in SERVICES.items() if service.get("ports")] == ["gateway"]


@pytest.mark.parametrize("name", SERVICES)
def test_whatever_a_service_names_is_declared(name: str) -> None:
    service = SERVICES[name]
    volumes = {volume.partition(":")[0] for volume in service.get("volumes", [])}
    secrets = {secret["source"] for secret in service.get("secrets", [])}
    assert {v for v in volumes if not v.startswith((".", "/"))} <= COMPOSE["volumes"].keys()
    assert secrets <= COMPOSE["secrets"].keys()
    assert set(service.get("networks", [])) <= COMPOSE["networks"].keys()
    assert set(service.get("depends_on", {})) <= SERVICES.keys()


def test_whatever_is_declared_is_used() -> None:
    text = json.dumps(SERVICES)
    for kind in ("volumes", "secrets", "networks"):
        for name in COMPOSE[kind]:
            assert name in text


def test_secrets_come_from_outside_the_file() -> None:
    assert all(secret.keys() == {"environment"} for secret in COMPOSE["secrets"].values())


@pytest.mark.parametrize("name", SERVICES)
def test_memory_is_limited_and_what_ends_comes_back(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    one_shot = "fetch" in service["command"]
    assert service["restart"] == ("no" if one_shot else "unless-stopped")


@pytest.mark.parametrize("name", [n for n, s in SERVICES.items() if is_ours(s)])
def test_our_services_run_commands_that_exist(name: str) -> None:
    service = SERVICES[name]
    if service.get("entrypoint") == ["ray"]:
        assert service["command"][0] == "start"
    else:
        assert_is_a_call(service["command"])


def test_the_gateway_listens_where_its_port_is_published() -> None:
    command = SERVICES["gateway"]["command"]
    published = SERVICES["gateway"]["ports"][0].rpartition(":")[2]
    assert command[command.index("--port") + 1] == published
    assert command[command.index("--host") + 1] == "0.0.0.0"


@pytest.mark.parametrize("name", ["ray-head", "edge-worker"])
def test_ray_asks_for_a_token(name: str) -> None:
    service = SERVICES[name]
    assert service["environment"]["RAY_AUTH_MODE"] == "token"
    secret = Path(service["environment"]["RAY_AUTH_TOKEN_PATH"])
    assert secret.parent == Path("/run/secrets")
    assert secret.name in {source["source"] for source in service["secrets"]}


def test_the_edge_worker_offers_its_resource() -> None:
    command = SERVICES["edge-worker"]["command"]
    assert json.loads(command[command.index("--resources") + 1]) == {"edge": 1}


def test_weights_are_kept_where_the_image_looks_for_them() -> None:
    environment = " ".join(arguments("ENV"))
    home = re.search(r"COE_WEIGHTS=(\S+)", environment)
    assert home
    for name in ("gateway", "weights"):
        assert f"weights:{home[1]}" in SERVICES[name]["volumes"]


def test_the_package_is_copied_whole() -> None:
    assert arguments("COPY") == [". ."]
    assert arguments("ADD") == []


def test_links_and_build_files_reach_the_image() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    ignored = {line.strip("/") for line in lines if not line.startswith("#")}
    needed = {"coe", "routers", "optimizer", "kernels", "services"}
    needed |= {"pyproject.toml", "uv.lock", "README.md", "LICENSE"}
    assert not needed & ignored
    assert {".git", ".venv", "**/__pycache__"} <= ignored


def test_the_process_is_not_root() -> None:
    users = arguments("USER")
    assert users
    assert users[-1] not in ("root", "0")
    words = [word for word, _ in instructions()]
    assert max(i for i, word in enumerate(words) if word == "USER") > words.index("RUN")
    assert words.index("COPY") < words.index("USER")


def test_the_image_serves_and_says_whether_it_is_well() -> None:
    assert [json.loads(line) for line in arguments("ENTRYPOINT")] == [["coe"]]
    (command,) = (json.loads(line) for line in arguments("CMD"))
    assert_is_a_call(command)
    (check,) = arguments("HEALTHCHECK")
    assert "/healthz" in check
    assert f":{command[command.index('--port') + 1]}/" in check


def test_the_image_installs_what_is_locked() -> None:
    (sync,) = re.findall(r"uv sync [^&]*", " ".join(arguments("RUN")))
    assert sync.split() == "uv sync --locked --no-group dev ${EXTRAS}".split()
    assert 'EXTRAS="--extra embedded"' in arguments("ARG")
