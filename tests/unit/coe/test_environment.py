"""Secrets and folders that the environment names."""

from pathlib import Path

import pytest

from coe.environment import fleet_token, weights_home
from coe.errors import ConfigError

VARIABLE = "COE_FLEET_TOKEN"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_a_token_is_made_once_for_this_user_alone(home):
    with pytest.raises(ConfigError, match="export COE_FLEET_TOKEN"):
        fleet_token(VARIABLE)
    made = fleet_token(VARIABLE, create=True)
    assert len(made) >= 32
    assert fleet_token(VARIABLE, create=True) == fleet_token(VARIABLE) == made
    assert (home / "coe" / "fleet-token").stat().st_mode & 0o077 == 0


def test_the_end_of_a_line_is_no_part_of_a_token(home, monkeypatch):
    monkeypatch.setenv(VARIABLE, "of-a-mounted-file\n")
    assert fleet_token(VARIABLE) == "of-a-mounted-file"


@pytest.mark.parametrize("kept", ["", "\n", "clé", "two\nlines"])
def test_what_no_header_can_hold_is_no_token(home, kept):
    (home / "coe").mkdir()
    (home / "coe" / "fleet-token").write_text(kept)
    with pytest.raises(ConfigError, match="fleet-token holds no token"):
        fleet_token(VARIABLE, create=True)


def test_weights_live_where_the_environment_says(monkeypatch):
    monkeypatch.delenv("COE_WEIGHTS", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert weights_home() == Path("/home/someone/.cache/coe/weights")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert weights_home() == Path("/var/cache/coe/weights")
    monkeypatch.setenv("COE_WEIGHTS", "/srv/weights")
    assert weights_home() == Path("/srv/weights")
