"""``coe index``: what is printed where, and the exit codes."""

import json

import pytest
from typer.testing import CliRunner

from coe.routers.embed import MEANING_DIM
from coe.services.cli import app


def run(*arguments):
    return CliRunner().invoke(app, ["index", *map(str, arguments)])


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "ships.md").write_text("# Ships\n## Sails\nA sail is hoisted on the mast.\n")
    (folder / "bread.txt").write_text("Knead the dough, then bake it.\x1b]0;title\x07")
    return folder


@pytest.fixture
def index(docs, tmp_path):
    assert run("build", docs, "--out", tmp_path / "index", "--no-dense").exit_code == 0
    return tmp_path / "index"


def test_build_says_what_there_is_on_stdout_and_what_was_left_out_on_stderr(docs, tmp_path):
    (docs / "picture.png").touch()
    (docs / "bad.txt").write_bytes(b"\xff")
    result = run("build", docs, "--out", tmp_path / "index")
    assert result.exit_code == 0
    assert "2 passages of 2 documents" in result.stdout
    assert "with vectors" in result.stdout
    assert "skipped: picture.png: format .png is not read" in result.stderr
    assert "could not be read: bad.txt: not text in UTF-8" in result.stderr
    assert "picture" not in result.stdout


def test_build_as_json_is_one_document(docs, tmp_path):
    (docs / "picture.png").touch()
    result = run("build", docs, "--out", tmp_path / "index", "--json")
    report = json.loads(result.stdout)
    assert (report["n_documents"], report["n_passages"], report["failed"]) == (2, 2, [])
    assert report["skipped"] == [{"source": "picture.png", "reason": "format .png is not read"}]
    assert report["embedder"]
    assert report["n_bytes"] > 0
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert manifest["settings"]["n_features"] == MEANING_DIM


def test_a_folder_of_many_foreign_files_does_not_flood(docs, tmp_path):
    for n in range(50):
        (docs / f"{n}.png").touch()
    result = run("build", docs, "--out", tmp_path / "index", "--no-dense")
    assert result.stderr.count("skipped:") == 21
    assert "skipped: 30 more (--json names all)" in result.stderr


def test_search_shows_rank_source_title_and_text(docs, tmp_path):
    run("build", docs, "--out", tmp_path / "index")
    for mode in ("hybrid", "bm25", "dense"):
        result = run("search", tmp_path / "index", "hoist the sail", "--mode", mode, "-k", 1)
        assert result.exit_code == 0
        assert result.stdout.startswith("1. ships.md  Ships > Sails  [")
        assert "A sail is hoisted on the mast." in result.stdout


def test_search_as_json_has_every_field_and_the_text_verbatim(index):
    result = run("search", index, "dough", "--json")
    document = json.loads(result.stdout)
    assert set(document) == {"query", "mode", "evidence", "hits"}
    (hit,) = document["hits"]
    assert set(hit) == {
        "rank", "score", "passage_id", "text", "source", "title", "position", "page",
    }  # fmt: skip
    assert hit["text"] == "Knead the dough, then bake it.\x1b]0;title\x07"
    assert document["evidence"]["n_matching"] == 1


def test_a_document_cannot_steer_the_terminal(index):
    result = run("search", index, "dough")
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    assert "bake it.\ufffd]0;title\ufffd" in result.stdout


def test_search_without_vectors_says_so_once(index):
    result = run("search", index, "dough")
    assert "searched by words alone" in result.stderr
    assert "bread.txt" in result.stdout
    assert run("search", index, "dough", "--mode", "bm25").stderr == ""


def test_nothing_found_is_no_error(index):
    for query in ("zeppelin", ""):
        result = run("search", index, query, "--mode", "bm25")
        assert (result.exit_code, result.stdout) == (0, "nothing found\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["build", "nowhere", "--out", "x"], 2, "no such file or folder"),
        (["build", "{docs}/empty", "--out", "x"], 2, "holds no document with text"),
        (["build", "{docs}", "--out", "{index}/x", "--strict"], 2, "bad.jsonl:2"),
        (["build", "{docs}", "--out", "{docs}"], 1, "is not a retrieval index"),
        (["search", "{docs}", "sail"], 1, "not a readable retrieval index"),
        (["search", "{index}", "sail", "--mode", "fuzzy"], 2, "mode must be one of"),
        (["search", "{index}", "sail", "--mode", "dense"], 2, "mode must be one of hybrid, bm25"),
        (["search", "{index}", "sail", "-k", "0"], 2, "-k"),
    ],
)
def test_what_is_wrong_is_said_in_one_error(docs, index, arguments, code, message):
    (docs / "empty").mkdir()
    (docs / "bad.jsonl").write_text('{"text": "x"}\nno')
    result = run(*(a.format(docs=docs, index=index) for a in arguments))
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_build_that_is_refused_leaves_the_old_index(docs, index):
    before = run("search", index, "sail", "--json").stdout
    (docs / "bad.txt").write_bytes(b"\xff")
    assert run("build", docs, "--out", index, "--strict").exit_code == 2
    assert run("search", index, "sail", "--json").stdout == before
    assert run("build", docs, "--out", index).exit_code == 0
    assert sorted(path.name for path in index.parent.iterdir()) == ["docs", "index"]


def test_help_names_both_verbs():
    result = run("--help")
    assert "build" in result.stdout
    assert "search" in result.stdout
