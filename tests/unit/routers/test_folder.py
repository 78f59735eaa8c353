"""Folders with a manifest: exchanged as a whole, or left as they were."""

import json

import pytest

from coe.errors.files import ArtefactError
from coe.routers.folder import Form, identity, is_of, read, write

FORM = Form("table", 2, "make it again", kind="table")
PLAIN = Form("artefact", 1, "train it again")
FILES = {"a.bin": b"\x00\x01", "b.json": b"[]"}


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "folder", FORM, {"note": "one"}, FILES)
    return tmp_path / "folder"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_was_written_is_read(folder):
    manifest, files = read(folder, FORM, FILES)
    assert files == FILES
    assert (manifest["schema"], manifest["kind"], manifest["note"]) == (2, "table", "one")


def test_a_form_without_kind_writes_none_and_takes_none(folder, tmp_path):
    write(tmp_path / "plain", PLAIN, {}, FILES)
    assert "kind" not in json.loads((tmp_path / "plain" / "manifest.json").read_bytes())
    assert read(tmp_path / "plain", PLAIN, FILES)[1] == FILES
    for path, form in ((folder, PLAIN), (tmp_path / "plain", FORM)):
        assert not is_of(path, form)
        with pytest.raises(ArtefactError, match="its kind is another"):
            read(path, form, FILES)
        with pytest.raises(ArtefactError, match="it is left alone"):
            write(path, form, {}, FILES)


def test_an_older_schema_is_not_read_but_may_be_replaced(folder):
    newer = Form("table", 3, "make it again", kind="table")
    with pytest.raises(ArtefactError, match="schema is not 3: make it again"):
        read(folder, newer, FILES)
    write(folder, newer, {}, FILES)
    assert read(folder, newer, FILES)[1] == FILES


def test_the_check_sees_the_new_folder_before_it_replaces_the_old(folder):
    def check(staging):
        assert read(staging, FORM, ["c"])[1] == {"c": b"new"}
        assert read(folder, FORM, FILES)[1] == FILES

    write(folder, FORM, {}, {"c": b"new"}, check)
    assert read(folder, FORM, ["c"])[1] == {"c": b"new"}


@pytest.mark.parametrize("error", [ArtefactError("a canary failed"), KeyboardInterrupt()])
def test_what_the_check_refuses_changes_nothing(folder, error):
    before = contents(folder)

    def check(staging):
        raise error

    with pytest.raises(type(error)):
        write(folder, FORM, {}, {"c": b"new"}, check)
    assert contents(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize(("note", "refusal"), [(object(), TypeError), (float("nan"), ValueError)])
def test_a_manifest_that_json_cannot_say_changes_nothing(folder, note, refusal):
    before = contents(folder)
    with pytest.raises(refusal):
        write(folder, FORM, {"note": note}, FILES)
    assert contents(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


def test_the_folders_above_are_made(tmp_path):
    write(tmp_path / "a" / "b", FORM, {}, FILES)
    assert read(tmp_path / "a" / "b", FORM, FILES)[1] == FILES


def test_a_link_to_itself_is_an_error_and_no_crash(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ArtefactError):
        write(tmp_path / "loop" / "index", FORM, {}, FILES)


def test_the_identity_of_a_folder_changes_with_every_byte_of_it(tmp_path):
    for k, content in enumerate((b"one", b"two", b"one")):
        write(tmp_path / str(k), FORM, {}, {"a": content})
    found = [identity(tmp_path / str(k)) for k in range(3)]
    assert found[0] == found[2] != found[1]
    with pytest.raises(ArtefactError, match="no readable manifest"):
        identity(tmp_path)
