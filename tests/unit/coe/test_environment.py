"""Secrets and folders that the environment names."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coe.environment import caller_key, fleet_token, key_pepper, secrets_in, weights_home
from coe.errors.files import ConfigError

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


@pytest.fixture
def pepper_file(tmp_path, monkeypatch):
    monkeypatch.delenv("PEPPER", raising=False)
    return tmp_path / "state" / "keys.pepper"


def test_a_pepper_is_made_once_for_its_user_alone(pepper_file):
    made = key_pepper("PEPPER", pepper_file)
    assert len(made) >= 32
    assert key_pepper("PEPPER", pepper_file) == made
    assert pepper_file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in pepper_file.parent.iterdir()] == ["keys.pepper"]


def test_all_who_make_one_at_once_get_the_same(pepper_file):
    with ThreadPoolExecutor(16) as makers:
        found = set(makers.map(lambda _: key_pepper("PEPPER", pepper_file), range(64)))
    assert len(found) == 1


def test_the_environment_wins_and_nothing_is_kept(pepper_file, monkeypatch):
    monkeypatch.setenv("PEPPER", "x" * 32 + "\n")
    assert key_pepper("PEPPER", pepper_file) == b"x" * 32
    assert not pepper_file.exists()


@pytest.mark.parametrize("short", ["x", "x" * 31])
def test_a_short_pepper_is_refused(pepper_file, monkeypatch, short):
    monkeypatch.setenv("PEPPER", short)
    with pytest.raises(ConfigError, match="PEPPER: a secret has 32 signs at least"):
        key_pepper("PEPPER", pepper_file)


def test_a_pepper_that_everybody_reads_is_refused(pepper_file):
    key_pepper("PEPPER", pepper_file)
    pepper_file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        key_pepper("PEPPER", pepper_file)


def test_where_none_can_be_kept_the_variable_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="export PEPPER"):
        key_pepper("PEPPER", tmp_path / "file" / "keys.pepper")


def test_secrets_are_values_and_the_passwords_in_them(monkeypatch):
    monkeypatch.setenv("A", "token ")
    monkeypatch.setenv("B", "redis://user:p%40ss@127.0.0.1:6379/0")
    monkeypatch.setenv("C", "")
    found = secrets_in(["A", "B", "C", "D"])
    assert set(found) == {"token", "redis://user:p%40ss@127.0.0.1:6379/0", "p%40ss", "p@ss"}


def test_a_callers_key_must_be_sendable(monkeypatch):
    monkeypatch.delenv("COE_API_KEY", raising=False)
    assert caller_key() is None
    monkeypatch.setenv("COE_API_KEY", "coe-1")
    assert caller_key() == "coe-1"
    monkeypatch.setenv("COE_API_KEY", "clé")
    with pytest.raises(ConfigError, match="COE_API_KEY holds no token"):
        caller_key()


def test_why_a_pepper_cannot_be_kept_is_said_without_numbers(tmp_path, monkeypatch):
    monkeypatch.delenv("PEPPER", raising=False)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as refused:
        key_pepper("PEPPER", tmp_path / "file" / "keys.pepper")
    assert str(refused.value).endswith("/file/keys.pepper: File exists: export PEPPER")
