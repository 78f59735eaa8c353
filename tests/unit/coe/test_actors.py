"""What can be said of the actors without a cluster."""

import pytest

pytest.importorskip("ray")

from coe import actors


def test_the_token_of_a_cluster_is_for_this_user_alone(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    actors._keep_token()
    kept = tmp_path / ".ray" / "auth_token"
    made = kept.read_text()
    assert len(made) == 64
    assert kept.stat().st_mode & 0o077 == 0
    actors._keep_token()
    assert kept.read_text() == made


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_a_token_that_is_given_is_not_made(tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(name, "given")
    actors._keep_token()
    assert not list(tmp_path.iterdir())
