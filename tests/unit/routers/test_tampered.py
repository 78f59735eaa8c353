"""Artefacts by somebody who also rewrites the hashes: refused, and before much memory is taken."""

import hashlib
import json
import struct
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load, save

from coe.errors.files import ArtefactError
from coe.routers.artefact import Artefact

ARRAYS = "arrays.safetensors"
MIB = 2**20


@pytest.fixture
def folder(make_spec, make_artefact, tmp_path):
    experts = [make_spec("a"), make_spec("b", watts=20.0, slots=2)]
    make_artefact(experts, [[0.875, 0.5], [0.25, 0.75], [0.5, 0.625]]).save(tmp_path / "artefact")
    return tmp_path / "artefact"


def rewritten(folder, content):
    """The folder with other arrays, which its manifest promises."""
    manifest = json.loads((folder / "manifest.json").read_text())
    promise = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest["files"][ARRAYS] = promise
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / ARRAYS).write_bytes(content)
    return folder


def header(document, body=b"", length=None):
    text = json.dumps(document).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def of(dtype, shape, offsets):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


FILES = {
    "pickle": b"\x80\x04\x95\x12" + bytes(7) + b"\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
    "nothing": b"",
    "a header of 2 GiB": header({}, length=2**31),
    "a header of 2**63 bytes": header({}, length=2**63),
    "a header beyond the file": header({}, length=10_000),
    "a header that is no JSON": struct.pack("<Q", 4) + b"{{{{",
    "a header nested deep": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "offsets beyond the file": header({"x": of("F32", [2], [0, 8])}),
    "offsets backwards": header({"x": of("F32", [2], [8, 0])}, bytes(8)),
    "tensors that overlap": header(
        {"x": of("F32", [2], [0, 8]), "y": of("F32", [2], [4, 12])}, bytes(12)
    ),
    "a shape that overflows": header({"x": of("F32", [2**62, 4], [0, 8])}, bytes(8)),
    "a negative shape": header({"x": of("F32", [-2], [0, 8])}, bytes(8)),
    "an unknown type": header({"x": of("OBJECT", [1], [0, 8])}, bytes(8)),
    "a hole between tensors": header({"x": of("F32", [2], [4, 12])}, bytes(12)),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_a_file_that_is_no_arrays_is_refused(folder, content):
    rewritten(folder, content)
    tracemalloc.start()
    try:
        with pytest.raises(ArtefactError):
            Artefact.load(folder)
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()


def spoilt(name, value):
    def change(tensors):
        tensors[name] = tensors[name].copy()
        tensors[name].flat[-1] = value

    return change


def without(name):
    return lambda tensors: tensors.pop(name)


def added(name, array):
    return lambda tensors: tensors.update({name: array})


CHANGES = {
    "a weight that is no number": spoilt("category.coef", np.nan),
    "an endless weight": spoilt("category.intercept", np.inf),
    "a point that is no number": spoilt("category.points", np.nan),
    "a quality that is no number": spoilt("quality.quality", np.nan),
    "an error below zero": spoilt("quality.quality_se", -1.0),
    "an answer of endless length": spoilt("quality.mean_tokens", np.inf),
    "an answer of negative length": spoilt("quality.cautious_tokens", -5.0),
    "no weights": without("category.coef"),
    "one tensor more": added("extra", np.zeros(3)),
    "a table of another shape": added("quality.quality_se", np.zeros((2, 9))),
    "weights of text": added("category.coef", np.zeros((2, 4), np.uint8)),
    "weights of one dimension": added("category.coef", np.zeros(4)),
    "lengths of half an expert": added("lengths.coef", np.zeros((3, 1, 4))),
    "a gate without its parts": added("gate.centre", np.zeros(3)),
    "modes that nobody describes": added("modes.quality", np.zeros((3, 1))),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_arrays_that_make_no_sense_are_refused(folder, change):
    tensors = load((folder / ARRAYS).read_bytes())
    change(tensors)
    with pytest.raises(ArtefactError):
        Artefact.load(rewritten(folder, save(tensors)))


@pytest.mark.parametrize("name", [ARRAYS, "manifest.json"])
def test_a_file_of_a_terabyte_is_refused_unread(folder, name):
    with (folder / name).open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(ArtefactError):
        Artefact.load(folder)
