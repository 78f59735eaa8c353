import hashlib
import http.server
import threading
from functools import partial

import pytest

from coe.config import DATA
from coe.errors.files import WeightsError
from coe.services.weights import Weights, fetch, locate, read_manifest, verified

CONTENT = bytes(range(256)) * 5000


def weights(*sources, content=CONTENT, file="small.gguf"):
    return Weights(
        name="small",
        file=file,
        n_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        licence="CC0-1.0",
        about="",
        sources=sources,
    )


@pytest.fixture
def served(tmp_path):
    """A folder behind a real HTTP server on loopback: (folder, url)."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_shipped_manifest_states_licence_hash_and_sources():
    for entry in read_manifest(DATA / "weights.json").values():
        assert entry.licence == "Apache-2.0"
        assert len(entry.sha256) == 64
        assert entry.n_bytes > 1_000_000
        assert entry.sources


def test_fetched_by_url_with_progress(tmp_path, served):
    folder, url = served
    (folder / "w").write_bytes(CONTENT)
    done = []
    path = fetch(weights({"kind": "url", "url": f"{url}/w"}), tmp_path / "home", done.append)
    assert path.read_bytes() == CONTENT
    assert done[-1] == len(CONTENT)
    assert done == sorted(done)


def test_a_wrong_source_is_named_and_the_next_one_is_tried(tmp_path, served):
    folder, url = served
    (folder / "wrong").write_bytes(CONTENT[::-1])
    (folder / "short").write_bytes(CONTENT[:-1])
    (folder / "long").write_bytes(CONTENT + b"!")
    (folder / "right").write_bytes(CONTENT)
    names = ("absent", "wrong", "short", "long", "right")
    said = []
    entry = weights(*({"kind": "url", "url": f"{url}/{name}"} for name in names))
    path = fetch(entry, tmp_path / "home", say=said.append)
    assert path.read_bytes() == CONTENT
    assert [line.split()[2].rstrip(":").rsplit("/")[-1] for line in said] == list(names[:-1])


def test_nothing_wrong_is_left_behind(tmp_path, served):
    folder, url = served
    (folder / "wrong").write_bytes(CONTENT[::-1])
    home = tmp_path / "home"
    with pytest.raises(WeightsError, match="sha256 is"):
        fetch(weights({"kind": "url", "url": f"{url}/wrong"}), home)
    assert list(home.iterdir()) == []


def test_what_is_here_is_not_fetched_again(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "small.gguf").write_bytes(CONTENT)
    assert fetch(weights({"kind": "url", "url": "http://127.0.0.1:1/"}), home).read_bytes()


def test_an_altered_file_is_refused_and_replaced_by_fetch(tmp_path, served):
    folder, url = served
    (folder / "w").write_bytes(CONTENT)
    home = tmp_path / "home"
    home.mkdir()
    altered = bytearray(CONTENT)
    altered[1000] ^= 1
    (home / "small.gguf").write_bytes(altered)
    entry = weights({"kind": "url", "url": f"{url}/w"})
    assert locate(entry, home) is not None
    with pytest.raises(WeightsError, match="sha256 is"):
        verified(entry, home)
    assert fetch(entry, home).read_bytes() == CONTENT


def test_an_installed_package_is_found_without_being_imported(tmp_path, monkeypatch):
    package = tmp_path / "weights_of_a_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "w.gguf").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(tmp_path)
    source = {"kind": "installed", "package": "weights_of_a_package", "member": "w.gguf"}
    assert verified(weights(source), tmp_path / "home") == package / "w.gguf"


def test_absent_weights_say_what_to_do(tmp_path):
    with pytest.raises(WeightsError, match="coe weights fetch"):
        verified(weights(), tmp_path)
    with pytest.raises(WeightsError, match="no source"):
        fetch(weights(), tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"a": {}}', '{"a": 3}'])
def test_a_malformed_manifest_is_refused(tmp_path, text):
    path = tmp_path / "weights.json"
    path.write_text(text)
    with pytest.raises(WeightsError, match="not a weights manifest"):
        read_manifest(path)
