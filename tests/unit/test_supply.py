"""What is installed: from one index, by hash, past known weaknesses; and what lint keeps out."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INDEX = "https://pypi.org/simple"

# the first release without a published weakness of a kind that a gateway is open to
FLOORS = {
    "aiohttp": "3.13.3",  # CVE-2025-69223, -69224: a compressed body takes all memory; smuggling
    "h11": "0.16.0",  # CVE-2025-43859: chunked bodies are read leniently
    "ray": "2.52",  # CVE-2025-62593, -34351: jobs from a browser; no authentication
    "redis": "4.5.5",  # CVE-2023-28858, -28859: a cancelled command's reply goes to the next
    "starlette": "0.49.1",  # CVE-2025-62727, -54121, CVE-2024-47874: ranges, files, multipart
    "urllib3": "2.6.3",  # CVE-2025-66418, -66471, CVE-2026-21441: compressed answers
}


def release(version):
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def declared():
    """By name, the lowest release that the package says it works with."""
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for requirement in (one for group in groups for one in group):
        name, lowest = re.match(r"([a-z0-9-]+)(?:\[.*\])?>=([0-9.]+)", requirement).groups()
        yield name, lowest


def test_everything_comes_from_one_index_by_hash():
    packages = [one for one in LOCK if one["source"] != {"editable": "."}]
    assert {json.dumps(one["source"]) for one in packages} == {json.dumps({"registry": INDEX})}
    files = [
        file for one in packages for file in [*one.get("wheels", ()), one.get("sdist")] if file
    ]
    assert files
    assert [file["url"] for file in files if not file["hash"].startswith("sha256:")] == []


@pytest.mark.parametrize("name", FLOORS)
def test_what_is_locked_is_past_known_weaknesses(name):
    found = [one["version"] for one in LOCK if one["name"] == name]
    assert found
    assert min(map(release, found)) >= release(FLOORS[name])


def test_what_is_asked_for_is_past_known_weaknesses():
    """Also where somebody installs without the lock file."""
    old = {n: v for n, v in declared() if n in FLOORS and release(v) < release(FLOORS[n])}
    assert old == {}


BANNED = {
    "TID251": "import pickle\n",
    "S301": "import pickle\n\npickle.loads(b'')\n",
    "S302": "import marshal\n\nmarshal.loads(b'')\n",
    "S307": "eval('1')\n",
    "S102": "exec('x = 1')\n",
    "S506": "import yaml\n\nyaml.load('', yaml.Loader)\n",
    "S501": "import httpx\n\nhttpx.get('https://a', verify=False, timeout=1)\n",
    "S113": "import requests\n\nrequests.get('https://a')\n",
    "S323": "import ssl\n\nssl._create_unverified_context()\n",
    "S324": "import hashlib\n\nhashlib.md5(b'')\n",
    "S602": "import subprocess\n\nsubprocess.run('ls', shell=True, check=True)\n",
    "S608": "name = 'x'\nquery = f\"SELECT * FROM t WHERE name = '{name}'\"\n",
    "S701": "import jinja2\n\njinja2.Environment()\n",
    "BLE001": "try:\n    pass\nexcept Exception:\n    pass\n",
}


@pytest.mark.parametrize("rule", BANNED)
def test_lint_refuses_it(rule):
    command = [str(Path(sys.executable).with_name("ruff")), "check", "--output-format=json"]
    done = subprocess.run(
        [*command, "--stdin-filename", "services/example.py", "-"],
        input=BANNED[rule], cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert rule in {finding["code"] for finding in json.loads(done.stdout)}


def test_importing_it_asks_nobody():
    """No name is looked up and no connection opened by the import of anything that serves."""
    program = (
        "import sys\n"
        "asked = []\n"
        "sys.addaudithook(lambda event, args: asked.append(event) if event in"
        " ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname') else None)\n"
        "import coe, coe.services.cli, coe.services.gateway, coe.services.runtime\n"
        "sys.exit(str(asked) if asked else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_bill_of_materials_is_made_by_one_command():
    recipe = (ROOT / "Makefile").read_text()
    assert re.search(r"^sbom: .*\n\t.*--format cyclonedx1\.5", recipe, re.M)
