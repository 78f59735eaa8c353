"""Files of recorded requests."""

import gzip

import pytest

from coe.errors.files import SimulationError
from coe.services.trace import read_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens,workload
2023-11-16 18:17:04.0319600,3180,8,code
2023-11-16 18:17:03.9799600,4808,10,conv
2023-11-16 18:17:05.9799600,110,27,code
"""


@pytest.fixture
def written(tmp_path):
    def write(text, name="trace.csv"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write


@pytest.mark.parametrize("name", ["trace.csv", "trace.csv.gz"])
def test_azure_s_columns_are_read_in_order_of_arrival(written, name):
    trace = read_trace(written(AZURE, name))
    assert trace.at_s.tolist() == pytest.approx([0.0, 0.052, 2.0])
    assert trace.prompt_tokens.tolist() == [4808, 3180, 110]
    assert trace.output_tokens.tolist() == [10, 8, 27]


def test_arrivals_may_be_seconds(written):
    trace = read_trace(written("TIMESTAMP,ContextTokens,GeneratedTokens\n7,1,2\n5.5,3,4\n"))
    assert trace.at_s.tolist() == [0.0, 1.5]
    assert trace.prompt_tokens.tolist() == [3, 1]


@pytest.mark.parametrize("heading", ["", "ContextTokens,GeneratedTokens\n"])
def test_two_columns_are_lengths(written, heading):
    trace = read_trace(written(heading + "10,20\n30,40\n"))
    assert trace.at_s is None
    assert trace.prompt_tokens.tolist() == [10, 30]
    assert trace.output_tokens.tolist() == [20, 40]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable CSV file"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "a trace needs two rows, it has 0"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,3\n", "two rows, it has 1"),
        (
            "TIMESTAMP,Context\n1,2\n2,3\n",
            "missing columns: ContextTokens, GeneratedTokens; it has",
        ),
        ("ContextTokens,GeneratedTokens\n1,2\n1,x\n", "column GeneratedTokens must hold whole"),
        ("ContextTokens,GeneratedTokens\n1,2\n1.5,2\n", "column ContextTokens must hold whole"),
        ("ContextTokens,GeneratedTokens\n1,2\n-1,2\n", "column ContextTokens has an empty cell"),
        ("ContextTokens,GeneratedTokens\n1,2\n,2\n", "column ContextTokens has an empty cell"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nsoon,1,2\nlate,1,2\n", "neither dates nor"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,1,2\n,1,2\n", "empty or infinite cell"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,1,2\n1,1,2\n", "all requests came at once"),
    ],
)
def test_what_is_wrong_is_named(written, text, message):
    with pytest.raises(SimulationError, match=message):
        read_trace(written(text))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SimulationError, match="gone"):
        read_trace(tmp_path / "gone.csv")
