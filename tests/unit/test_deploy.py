"""Units and configurations under deploy/, and the commands of the page on fleets."""

import configparser
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from coe.config import Config, load_config
from coe.services.cli import app

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = ROOT / "deploy/systemd"
UNITS = sorted(path.name for path in SYSTEMD.glob("*.service"))
CONFIGS = sorted(ROOT.glob("deploy/*/coe.yaml"))
PAGE = (ROOT / "docs/fleet.md").read_text()

# systemd 249 and newer (Ubuntu 22.04, which is JetPack 6)
DIRECTIVES = {
    "Unit": {"Description", "Documentation", "Wants", "After", "StartLimitIntervalSec"},
    "Service": {
        *("Type", "User", "Group", "SupplementaryGroups", "StateDirectory", "Environment"),
        *("EnvironmentFile", "ExecStart", "Restart", "RestartSec", "TimeoutStopSec", "LimitNOFILE"),
        *("UMask", "NoNewPrivileges", "CapabilityBoundingSet", "PrivateTmp", "PrivateDevices"),
        *("ProtectSystem", "ProtectHome", "ProtectClock", "ProtectControlGroups"),
        *("ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables"),
        *("RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID"),
        *("LockPersonality", "SystemCallArchitectures"),
    },
    "Install": {"WantedBy"},
}


class Unit(configparser.RawConfigParser):
    """A systemd unit: names keep their case, and one that comes again is a list's next entry."""

    def __init__(self, path: Path) -> None:
        super().__init__(delimiters=("=",), comment_prefixes=("#",), strict=False)
        self.read_string(path.read_text())
        self.lines = re.findall(r"^(\w+)=(.*)$", path.read_text(), re.M)

    def optionxform(self, optionstr: str) -> str:
        return optionstr

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.lines if key == name]

    @property
    def environment(self) -> dict[str, str]:
        words = [word for line in self.all("Environment") for word in shlex.split(line)]
        return dict(word.split("=", 1) for word in words)


def variables(path: Path) -> dict[str, str]:
    """What an EnvironmentFile sets, and what it would set where an example is commented out."""
    lines = re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", path.read_text(), re.M)
    return {name: shlex.split(value)[0] for name, value in lines}


def assert_is_a_call(words: list[str]) -> None:
    """The command exists and knows its options. Nothing is run."""
    program, *rest = words
    if program == "ray":
        command: Any = pytest.importorskip("ray.scripts.scripts").cli
    else:
        assert program == "coe"
        command = typer.main.get_command(app)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    assert not hasattr(command, "commands"), f"{shlex.join(words)}: not a command"
    command.make_context(program, rest)


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_has_directives_that_systemd_knows(name: str) -> None:
    unit = Unit(SYSTEMD / name)
    assert set(unit.sections()) == DIRECTIVES.keys()
    for section in unit.sections():
        assert set(unit[section]) <= DIRECTIVES[section]
    assert sum(len(unit[section]) for section in unit.sections()) <= len(unit.lines)


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_comes_back_and_has_few_rights(name: str) -> None:
    service = Unit(SYSTEMD / name)["Service"]
    assert service["Restart"] == "always"
    assert service["User"] not in ("root", "")
    assert service["NoNewPrivileges"] == "yes"
    assert service["CapabilityBoundingSet"] == ""
    assert service["ProtectSystem"] == "strict"
    home = Unit(SYSTEMD / name).environment["HOME"]
    assert home == f"/var/lib/{service['StateDirectory']}"


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_runs_a_command_that_exists(name: str) -> None:
    (line,) = Unit(SYSTEMD / name).all("ExecStart")
    given = variables(SYSTEMD / "node.env.example")
    words = []
    for word in shlex.split(line):
        if word.startswith("$") and not word.startswith("${"):  # a whole word of its own: several
            words += shlex.split(given[word[1:]])
        else:
            words.append(re.sub(r"\$\{(\w+)\}", lambda match: given[match[1]], word))
    assert Path(words[0]).parent == Path("/opt/coe/.venv/bin")
    assert_is_a_call([Path(words[0]).name, *words[1:]])


def test_every_variable_of_the_nodes_file_is_used() -> None:
    (line,) = Unit(SYSTEMD / "coe-node.service").all("ExecStart")
    assert variables(SYSTEMD / "node.env.example").keys() == set(re.findall(r"\$\{?(\w+)", line))


def test_a_node_asks_for_the_token_and_ends_with_its_parts() -> None:
    unit = Unit(SYSTEMD / "coe-node.service")
    assert unit.environment["RAY_AUTH_MODE"] == "token"
    assert unit.environment["RAY_AUTH_TOKEN_PATH"].startswith("/etc/coe/")
    assert "--block" in shlex.split(unit["Service"]["ExecStart"])


def test_the_example_node_is_one_that_the_configuration_places_an_expert_on() -> None:
    config = load_config(SYSTEMD / "coe.yaml")
    node = variables(SYSTEMD / "node.env.example")
    offers = json.loads(node["COE_RESOURCES"])
    placed = [expert for expert in config.experts if expert.node == node["COE_NODE"]]
    assert placed
    assert all(expert.resources.items() <= offers.items() for expert in placed)
    assert config.fleet is not None
    assert node["COE_HEAD"].partition(":")[0] == config.fleet.host


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.parent.name)
def test_every_configuration_loads_and_places_its_experts(path: Path) -> None:
    config = load_config(path)
    assert config.fleet is not None
    assert config.fleet.engines == "private"
    # an expert that needs nothing may be placed on a node that is there for a moment only
    assert all(expert.resources for expert in config.experts)


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)```", PAGE, re.S | re.M)
    return [re.sub(f"^{indent}", "", text, flags=re.M) for indent, text in found]


def logical_lines(text: str) -> Iterator[list[str]]:
    """The words and operators of a shell text, line by line, comments left out."""
    begun = ""
    for line in text.replace("\\\n", " ").splitlines():
        begun += line + "\n"
        lexer = shlex.shlex(begun, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            yield list(lexer)
        except ValueError:  # a quotation goes on in the next line
            continue
        begun = ""


def simple_commands(words: list[str]) -> Iterator[list[str]]:
    """What the words of a line call, without operators, assignments and ``sudo``."""
    command: list[str] = []
    for word in [*words, ";"]:
        if set(word) <= set("();<>|&"):
            if command:
                yield command
            command = []
        elif command or not re.match(r"\w+=|sudo$|--user=", word):
            command.append(word)


def commands() -> list[list[str]]:
    """Every call of ``coe`` or ``ray`` in the page's shell blocks."""
    found = [
        c for text in blocks("sh") for line in logical_lines(text) for c in simple_commands(line)
    ]
    own = [[Path(program).name, *rest] for program, *rest in found]
    return [words for words in own if words[0] in ("coe", "ray") and len(words) > 1]


@pytest.mark.parametrize("words", commands(), ids=shlex.join)
def test_a_command_of_the_page_exists(words: list[str]) -> None:
    assert_is_a_call(words)


def test_the_page_shows_every_verb() -> None:
    fleet: Any = typer.main.get_command(app)
    verbs = fleet.commands["fleet"].commands
    assert {words[2] for words in commands() if words[:2] == ["coe", "fleet"]} == verbs.keys()


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_configuration_of_the_page_loads(text: str, tmp_path: Path) -> None:
    path = tmp_path / "coe.yaml"
    path.write_text(text)
    config: Config = load_config(path)
    assert config.fleet is not None


def test_files_that_the_page_names_are_there() -> None:
    named = set(re.findall(r"deploy/[\w./-]+\w", PAGE))
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()
