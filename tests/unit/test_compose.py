"""compose.yaml and the Dockerfile, read as data: no Docker engine is needed."""

import json
import re
import shlex
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from coe.config import load_config
from coe.services.cli import app

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
FLEET = {"redis", "ray-head", "edge-worker", "fleet-up"}
RAY = {"ray-head", "edge-worker", "gpu-worker"}
ONE_SHOT = {"weights", "fleet-up"}
# the keys of the Compose specification that are used here
KEYS = {
    *("image", "build", "init", "restart", "read_only", "tmpfs", "cap_drop", "security_opt"),
    *("pids_limit", "networks", "entrypoint", "environment", "secrets", "volumes", "shm_size"),
    *("healthcheck", "command", "mem_limit", "ports", "depends_on", "stop_grace_period"),
    *("profiles", "deploy"),
}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}
CONFIG = load_config(ROOT / "deploy/compose/coe.yaml")


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


def option(name: str, flag: str) -> str:
    """What a service's command says after, or with, a flag; empty where it has none."""
    words = [part for word in SERVICES[name]["command"] for part in word.split("=", 1)]
    return words[words.index(flag) + 1] if flag in words else ""


def is_ours(service: dict[str, Any]) -> bool:
    return "build" in service


def test_the_services_are_there_and_the_unused_ones_wait_for_their_profile() -> None:
    profiles = {name: service.get("profiles") for name, service in SERVICES.items()}
    assert {name for name, named in profiles.items() if named == ["fleet"]} == FLEET
    assert {name for name, named in profiles.items() if named == ["gpu"]} == {"gpu-worker"}
    assert {name for name, named in profiles.items() if not named} == {"gateway", "weights"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_written_in_keys_that_compose_knows(name: str) -> None:
    service = SERVICES[name]
    assert service.keys() <= KEYS
    assert service.get("healthcheck", {}).keys() <= {
        *("test", "interval", "timeout", "start_period", "retries", "disable")
    }
    waits = service.get("depends_on", {}).values()
    assert all(wait.keys() == {"condition"} for wait in waits)
    assert {wait["condition"] for wait in waits} <= CONDITIONS
    assert all(isinstance(value, str) for value in service.get("environment", {}).values())
    assert all(isinstance(word, str) for word in service["command"])


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


def test_the_lock_and_no_other_place_says_which_versions_are_installed() -> None:
    for service in SERVICES.values():
        extras = service.get("build", {}).get("args", {}).get("EXTRAS", "")
        assert re.fullmatch(r"(--extra (embedded|fleet) ?)*", extras)
    again = re.findall(r"uv pip install [^;]*", " ".join(arguments("RUN")))
    assert all("uv pip freeze" in command and "--no-deps" in command for command in again)


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
    assert all((ROOT / volume).exists() for volume in volumes if volume.startswith("."))
    secrets = {secret["source"] for secret in service.get("secrets", [])}
    assert {v for v in volumes if not v.startswith((".", "/"))} <= COMPOSE["volumes"].keys()
    assert secrets <= COMPOSE["secrets"].keys()
    assert set(service.get("networks", [])) <= {"default", *COMPOSE["networks"]}
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
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")


@pytest.mark.parametrize("name", [n for n, s in SERVICES.items() if is_ours(s)])
def test_our_services_have_no_more_rights_than_they_need(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] > 0
    assert service["tmpfs"] == ["/tmp"]
    assert service["read_only"] is not bool(service.get("secrets"))


@pytest.mark.parametrize("name", ["gateway", "weights"])
def test_services_of_the_image_run_commands_that_exist(name: str) -> None:
    assert_is_a_call(SERVICES[name]["command"])


@pytest.mark.parametrize("name", sorted(RAY))
def test_nodes_run_a_ray_command_that_exists(name: str) -> None:
    scripts = pytest.importorskip("ray.scripts.scripts")
    verb, *words = SERVICES[name]["command"]
    scripts.cli.commands[verb].make_context("ray start", list(words))
    assert "--block" in words


def test_the_fleet_is_brought_up_by_commands_that_exist() -> None:
    scripts = pytest.importorskip("ray.scripts.scripts")
    (line,) = SERVICES["fleet-up"]["command"]
    (ray, start, *joins), (coe, *ups) = (shlex.split(part) for part in line.split("&&"))
    assert (ray, start, coe) == ("ray", "start", "coe")
    scripts.start.make_context("ray start", joins)
    assert_is_a_call(ups)


def test_the_gateway_listens_where_its_port_is_published() -> None:
    command = SERVICES["gateway"]["command"]
    published = SERVICES["gateway"]["ports"][0].rpartition(":")[2]
    assert command[command.index("--port") + 1] == published
    assert command[command.index("--host") + 1] == "0.0.0.0"


def test_whoever_needs_no_key_is_on_this_machine() -> None:
    assert "--without-keys" in SERVICES["gateway"]["command"]
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["gateway"]["ports"])


@pytest.mark.parametrize("name", sorted(RAY | {"fleet-up"}))
def test_ray_asks_for_a_token(name: str) -> None:
    service = SERVICES[name]
    assert service["environment"]["RAY_AUTH_MODE"] == "token"
    secret = Path(service["environment"]["RAY_AUTH_TOKEN_PATH"])
    assert secret.parent == Path("/run/secrets")
    assert secret.name in {source["source"] for source in service["secrets"]}


def test_every_expert_has_a_worker_that_offers_what_it_needs_even_without_a_gpu() -> None:
    offers = {name: json.loads(option(name, "--resources") or "{}") for name in RAY}
    assert offers["edge-worker"] == {"edge": 1, "large": 1}
    assert offers["gpu-worker"].keys() <= offers["edge-worker"].keys()
    for expert in CONFIG.experts:
        assert expert.resources, f"{expert.id} could be placed on fleet-up, which leaves"
        assert expert.resources.items() <= offers["edge-worker"].items()


def test_the_supervisor_is_where_the_gateway_looks_for_it() -> None:
    assert CONFIG.fleet is not None
    (address,) = (network["ipv4_address"] for network in SERVICES["ray-head"]["networks"].values())
    assert address == CONFIG.fleet.host
    (subnet,) = COMPOSE["networks"]["fleet"]["ipam"]["config"]
    assert ip_address(address) in ip_network(subnet["subnet"])
    assert CONFIG.fleet.engines == "private"


@pytest.mark.parametrize("name", ["gateway", *sorted(RAY), "fleet-up"])
def test_who_needs_it_is_in_the_fleets_network_and_has_its_configuration_and_token(
    name: str,
) -> None:
    service = SERVICES[name]
    assert "fleet" in service["networks"]
    config = "./deploy/compose/coe.yaml:/config/coe.yaml:ro"
    assert config in service["volumes"]
    assert "/config/coe.yaml" in service["environment"]["COE_CONFIG"]
    assert service["environment"]["COE_FLEET_TOKEN"] == "${COE_FLEET_TOKEN:-}"


def test_without_a_token_the_gateway_runs_its_experts_itself() -> None:
    assert SERVICES["gateway"]["environment"]["COE_CONFIG"] == (
        "${COE_FLEET_TOKEN:+/config/coe.yaml}"
    )


def test_the_gpu_is_reserved_for_the_worker_that_offers_it() -> None:
    devices = {
        name: service["deploy"]["resources"]["reservations"]["devices"]
        for name, service in SERVICES.items()
        if "deploy" in service
    }
    assert devices == {"gpu-worker": [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]}
    assert option("gpu-worker", "--num-gpus") == "1"


def test_weights_are_kept_where_the_image_looks_for_them() -> None:
    environment = " ".join(arguments("ENV"))
    home = re.search(r"COE_WEIGHTS=(\S+)", environment)
    assert home
    for name in ("gateway", "weights", *RAY):
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
