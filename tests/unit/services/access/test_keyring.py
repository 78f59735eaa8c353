"""Keys while a gateway runs: a change of the file holds soon, damage to it never."""

import os
import secrets
import time

import pytest

from coe.access.keys import digest_of, minted
from coe.services.access.keyfile import KeyFile, KeyRecord
from coe.services.access.keyring import Keyring

PEPPER = b"p" * 32


@pytest.fixture
def file(tmp_path):
    return KeyFile(tmp_path / "keys.json", PEPPER)


@pytest.fixture
def said():
    return []


@pytest.fixture
def keyring(file, clock, said):
    found = Keyring(file, said.append, now=clock)
    found.open()
    return found


def added(file):
    key_id, shown = minted(secrets.token_bytes)
    digest = digest_of(PEPPER, shown).hex()
    file.add(KeyRecord(id=key_id, digest=digest, created_s=time.time()))
    return shown


async def holds(keyring, shown):
    return (await keyring.current()).caller(shown, time.time()) is not None


async def test_a_new_key_holds_half_a_second_later_and_a_revoked_one_no_more(file, clock, keyring):
    shown = added(file)
    assert not await holds(keyring, shown)
    clock.seconds += 0.5
    assert await holds(keyring, shown)
    file.revoke(shown.split("-")[1], time.time())
    assert await holds(keyring, shown)
    clock.seconds += 0.5
    assert not await holds(keyring, shown)


async def test_a_file_that_is_gone_has_no_keys_and_that_is_said_once(file, clock, keyring, said):
    shown = added(file)
    clock.seconds += 1
    assert await holds(keyring, shown)
    file.path.unlink()
    for _ in range(3):
        clock.seconds += 1
        assert not await holds(keyring, shown)
    assert said == [f"no key holds any more: {file.path} is gone"]


async def test_of_a_damaged_file_it_is_said_once_and_the_keys_before_it_hold(
    file, clock, keyring, said
):
    shown = added(file)
    clock.seconds += 1
    assert await holds(keyring, shown)
    good = file.path.read_bytes()
    file.path.write_text("{")
    for _ in range(3):
        clock.seconds += 1
        assert await holds(keyring, shown)
    assert len(said) == 1
    assert "the keys stay as they were" in said[0]
    file.path.write_bytes(good)
    other = added(file)
    clock.seconds += 1
    assert await holds(keyring, other)


async def test_the_file_is_looked_at_seldom(file, clock, keyring, monkeypatch):
    looks = []
    stat = os.stat

    def counted(path, *more, **options):
        looks.append(path)
        return stat(path, *more, **options)

    monkeypatch.setattr(os, "stat", counted)
    for _ in range(1000):
        clock.seconds += 0.01
        await keyring.current()
    assert looks.count(file.path) <= 20


async def test_a_file_that_nobody_foresaw_would_not_be_read_is_read_again(
    file, clock, keyring, monkeypatch
):
    shown, reading = added(file), KeyFile.ring
    monkeypatch.setattr(KeyFile, "ring", lambda file: 1 / 0)
    clock.seconds += 0.5
    assert not await holds(keyring, shown)
    monkeypatch.setattr(KeyFile, "ring", reading)
    clock.seconds += 0.5
    assert await holds(keyring, shown)
