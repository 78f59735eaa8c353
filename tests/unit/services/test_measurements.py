"""Tables of measured requests, and what is said of wrong ones; the verbs that use them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from coe.config import load_config
from coe.device import DeviceProfile
from coe.errors.files import MeasurementsError
from coe.services.cli import app
from coe.services.measurements import read_measurements

TRUE = DeviceProfile("true", 2e-4, 0.5, 60.0, 25.0, 12.0, 8.0)
IDLE_W = 5.0
WHOLE = "prompt_tokens,output_tokens,ttft_ms,latency_ms,energy_j\n"
ROW = "10,20,100,1100,11\n"


def table(idle_w=0.0, power=False):
    """Whole requests as the profile would have them, on a device with idle power."""
    columns: dict = {name: [] for name in WHOLE.strip().split(",")}
    for prompt, output in [(8, 40), (100, 10), (700, 80), (1500, 5), (2500, 300), (60, 900)]:
        ttft_ms = TRUE.ttft_ms(prompt)
        latency_ms = ttft_ms + TRUE.decode_ms(output)
        joules = TRUE.energy_j(prompt, output) + idle_w * latency_ms / 1000
        for name, value in zip(columns, (prompt, output, ttft_ms, latency_ms, joules), strict=True):
            columns[name].append(value)
    if power:
        joules = np.array(columns.pop("energy_j"))
        columns["power_w"] = list(1000 * joules / np.array(columns["latency_ms"]))
    return columns


def write(path, columns):
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        cells = zip(*columns.values(), strict=True)
        rows = [",".join(columns), *(",".join(str(cell) for cell in row) for row in cells)]
        path.write_text("\n".join(rows) + "\n")
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["devices", *map(str, arguments)])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("power", [False, True])
def test_a_fitted_section_can_be_pasted_into_a_configuration(tmp_path, suffix, power):
    path = write(tmp_path / f"board{suffix}", table(IDLE_W, power))
    result = run("fit", path, "--idle-w", IDLE_W, "--scope", "wall", "--name", "near/one")
    assert result.exit_code == 0, result.stderr
    experts = 'experts:\n  - {id: e, kind: http, base_url: "http://h/v1", device: near/one}\n'
    (tmp_path / "coe.yaml").write_text(result.stdout + experts)
    found = load_config(tmp_path / "coe.yaml").specs["e"].profile
    assert found.scope == "wall"
    assert path.name in found.source
    assert found.ttft_ms(1000) == pytest.approx(TRUE.ttft_ms(1000), rel=1e-2)
    assert found.energy_j(500, 100) == pytest.approx(TRUE.energy_j(500, 100), rel=1e-2)


def test_json_says_what_the_yaml_says_and_the_errors(tmp_path):
    path = write(tmp_path / "board.csv", table())
    document = json.loads(run("fit", path, "--json").stdout)
    written = yaml.safe_load(run("fit", path).stdout)
    assert document["devices"] == written["devices"]
    assert document["held_out"]["n_ttft"] == 6
    assert document["held_out"]["latency"] < 0.01


def test_phases_may_be_rows_of_their_own(tmp_path):
    path = tmp_path / "phases.csv"
    path.write_text(
        "phase,prompt_tokens,output_tokens,ttft_ms,latency_ms,power_w,note\n"
        "prefill,100,,50,,20,a\n Decode ,,10,,1000,8,b\n"
        ",7,4,10,30,,c\n"
    )
    measured = read_measurements(path, idle_w=2.0)
    np.testing.assert_array_equal(measured.prompt_tokens, [100, np.nan, 7])
    np.testing.assert_array_equal(measured.output_tokens, [0, 10, 4])
    np.testing.assert_array_equal(measured.ttft_ms, [50, np.nan, 10])
    np.testing.assert_array_equal(measured.decode_ms, [np.nan, 1000, 20])
    np.testing.assert_allclose(measured.energy_j, [0.9, 6.0, np.nan])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no rows"),
        (WHOLE, "no rows"),
        ("prompt_tokens,ttft_ms\n1,2\n", "missing columns: latency_ms, output_tokens; it has pro"),
        ("phase,ttft_ms\nprefill,2\n", "missing columns: latency_ms"),
        (WHOLE.replace("energy_j", "ttft_ms") + ROW, "column ttft_ms appears twice"),
        (WHOLE + ROW + "10,20,fast,1100,11\n", "row 2: ttft_ms: must be a number, not 'fast'"),
        (WHOLE + "10,20,-1,1100,11\n", "row 1: ttft_ms: must be a finite number of at least 0"),
        (WHOLE + "10,20,inf,1100,11\n", "row 1: ttft_ms: must be a finite number of at least 0"),
        (WHOLE + "10,20,,1100,11\n", "row 1: ttft_ms: empty, and a request row needs it"),
        (WHOLE + "10,20\n", "row 1: ttft_ms: empty"),
        (WHOLE + "10,0,5,10,1\n", "row 1: output_tokens: must be positive"),
        (WHOLE + "10,20,100,90,1\n", "row 1: latency_ms: 90 is not more than ttft_ms, 100"),
        (WHOLE + "10,20,100,1000,2\n", "row 1: energy_j: 2 W on average is no more than idle, 3 W"),
        ("phase,latency_ms\nthink,2\n", "row 1: phase: must be one of request, prefill, decode"),
        ("phase,latency_ms\ndecode,2\n", "row 1: output_tokens: empty, and a decode row needs it"),
    ],
)
def test_a_wrong_table_is_named_with_row_and_column(tmp_path, text, said):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(MeasurementsError) as refused:
        read_measurements(path, idle_w=3.0)
    assert str(refused.value).startswith(f"{path}: {said}")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.parquet", b"no", "not a readable Parquet file"),
        ("t.csv", b"\xff\xfe\x00", "not a readable CSV file"),
        ("t.txt", b"", "must be a .csv or a .parquet file"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MeasurementsError, match=said):
        read_measurements(tmp_path / name)
    with pytest.raises(MeasurementsError, match="not a readable"):
        read_measurements(tmp_path / "absent" / "t.csv")


def test_watts_are_measured_or_stated_and_never_both(tmp_path):
    metered = write(tmp_path / "metered.csv", table())
    columns = table()
    del columns["energy_j"]
    cold = write(tmp_path / "cold.csv", columns)
    refused = run("fit", cold, "--decode-w", 4)
    assert refused.exit_code == 2
    assert "no row has energy_j or power_w: state watts with --prefill-w" in refused.stderr
    refused = run("fit", metered, "--decode-w", 4)
    assert refused.exit_code == 2
    assert "leave --decode-w out" in refused.stderr
    section = yaml.safe_load(run("fit", cold, "--decode-w", 4, "--prefill-w", 0).stdout)
    assert section["devices"]["cold"]["decode_w"] == 4
    assert section["devices"]["cold"]["prefill_w"] == 0


def test_a_poor_fit_is_remarked_on(tmp_path):
    columns = table()
    stretch = np.random.default_rng(0).uniform(1, 30, 6)
    columns["latency_ms"] = list(np.array(columns["latency_ms"]) * stretch)
    assert "the fit is poor" in run("fit", write(tmp_path / "wild.csv", columns)).stderr
    assert "the fit is poor" not in run("fit", write(tmp_path / "tame.csv", table())).stderr


def test_a_phase_without_joules_is_remarked_on_and_may_be_stated(tmp_path):
    rows = ["phase,prompt_tokens,output_tokens,ttft_ms,latency_ms,power_w"]
    rows += [f"prefill,{n},,{TRUE.ttft_ms(n)},," for n in (1, 50, 900)]
    rows += [f"decode,,{n},,{TRUE.decode_ms(n)},8" for n in (10, 20, 30)]
    path = tmp_path / "decode.csv"
    path.write_text("\n".join(rows))
    assert "prefill_w is 0: the rows do not tell its joules apart" in run("fit", path).stderr
    stated = yaml.safe_load(run("fit", path, "--prefill-w", 12).stdout)["devices"]["decode"]
    assert (stated["prefill_w"], stated["decode_w"]) == (12.0, 8.0)


def test_too_few_prompts_end_with_2_and_one_error(tmp_path):
    path = tmp_path / "few.csv"
    path.write_text(WHOLE + ROW * 9)
    result = run("fit", path)
    assert result.exit_code == 2
    assert "ttft_ms: measured at 1 different prompt_tokens: 3 are needed" in result.stderr
    assert result.stdout == ""


def test_what_ships_is_listed_for_people_and_programs():
    document = json.loads(run("list", "--json").stdout)
    lines = run("list").stdout.splitlines()
    assert lines[0].split()[:3] == ["name", "tokens/s", "J/token"]
    for row in document:
        assert row["source"]
        assert row["token_j"] == pytest.approx(row["decode_w"] / row["decode_tokens_per_s"], 1e-3)
        assert row["ttft_256_ms"] > 0
        (line,) = (line for line in lines if line.startswith(row["name"] + " "))
        assert row["scope"] in line
    # a terminal of 80 columns must not cost a figure
    assert all("…" not in line for line in lines)
