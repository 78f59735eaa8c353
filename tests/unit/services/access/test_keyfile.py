"""The file of keys: whole or not at all, by many writers, and read by its owner alone."""

import json
import multiprocessing
import stat
import threading

import pytest

from coe.access.keys import digest_of
from coe.errors.files import ConfigError
from coe.services.access.keyfile import KeyFile, KeyRecord

PEPPER = b"p" * 32


def record(n, **more):
    key_id = f"{n:012x}"
    digest = digest_of(PEPPER, f"coe-{key_id}-secret").hex()
    return KeyRecord(id=key_id, digest=digest, created_s=1.0, **more)


def add_some(path, first, n):
    file = KeyFile(path, PEPPER)
    for k in range(first, first + n):
        file.add(record(k))
        if k % 2:
            file.revoke(record(k).id, 2.0)


@pytest.fixture
def file(tmp_path):
    return KeyFile(tmp_path / "state" / "keys.json", PEPPER)


def test_what_was_added_is_read(file):
    assert file.records() == []
    one = record(1, name="jobs", tenant="acme", role="viewer", models=["a"], tokens_per_minute=9)
    file.add(one)
    file.add(record(2, expires_s=5.0))
    assert file.records() == [one, record(2, expires_s=5.0)]
    key = file.ring().keys[one.id]
    assert (key.caller.tenant, key.caller.models) == ("acme", frozenset({"a"}))
    assert (key.caller.rates.tokens, key.caller.rates.requests) == (9, None)


def test_only_its_owner_may_read_it(file):
    file.add(record(1))
    for path in file.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {path.name for path in file.path.parent.iterdir()} == {"keys.json", "keys.json.lock"}


def test_a_key_is_revoked_once(file):
    file.add(record(1))
    assert file.revoke(record(1).id, 3.0).revoked_s == 3.0
    assert file.revoke(record(1).id, 4.0).revoked_s == 3.0
    assert file.ring().keys[record(1).id].revoked
    with pytest.raises(ConfigError, match="there is no key 'x'"):
        file.revoke("x", 1.0)


def test_an_id_is_given_once(file):
    file.add(record(1))
    with pytest.raises(ConfigError, match="there is a key"):
        file.add(record(1))


def test_writers_at_once_lose_nothing_and_readers_see_whole_files(file):
    """Four processes, while this one reads."""
    context = multiprocessing.get_context("forkserver")
    writers = [context.Process(target=add_some, args=(file.path, 100 * n, 20)) for n in range(4)]
    for writer in writers:
        writer.start()
    seen = [0]
    while any(writer.is_alive() for writer in writers):
        seen.append(len(file.records()))
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen == sorted(seen)
    records = file.records()
    assert {r.id for r in records} == {record(100 * n + k).id for n in range(4) for k in range(20)}
    assert all((r.revoked_s is not None) == int(r.id, 16) % 2 for r in records)


def test_a_writer_waits_for_the_other(file):
    file.add(record(0))
    threads = [threading.Thread(target=add_some, args=(file.path, 10 * n, 4)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(file.records()) == 17


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"schema": 2, "keys": []}',
        '{"schema": 1, "keys": [{"id": "x"}]}',
        '{"schema": 1, "keys": [], "more": 1}',
    ],
)
def test_a_damaged_file_is_refused_and_not_written_over(file, text):
    file.add(record(1))
    file.path.write_text(text)
    for attempt in (file.records, lambda: file.add(record(2))):
        with pytest.raises(ConfigError, match="no file of keys"):
            attempt()
    assert file.path.read_text() == text


def test_errors_tell_no_digest(file):
    file.add(record(1))
    document = json.loads(file.path.read_text())
    digest = document["keys"][0]["digest"]
    document["keys"][0]["role"] = "king"
    file.path.write_text(json.dumps(document))
    with pytest.raises(ConfigError) as refused:
        file.records()
    assert digest not in str(refused.value)
    assert digest not in repr(record(1))


def test_another_pepper_is_noticed(file):
    file.add(record(1))
    with pytest.raises(ConfigError, match="another pepper"):
        KeyFile(file.path, b"q" * 32).records()


def test_where_nothing_can_be_kept_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"keys\.json"):
        KeyFile(tmp_path / "file" / "keys.json", PEPPER).add(record(1))
