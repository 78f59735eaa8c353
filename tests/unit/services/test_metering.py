"""Meters: sysfs trees as real machines show them, calls as the libraries answer them."""

import os
import tempfile
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from coe.config import MeteringSection
from coe.errors.files import ConfigError
from coe.errors.gateway import MeterError
from coe.services.metering.detect import ALL, ON_CPU, open_meter, survey
from coe.services.metering.ina3221 import open_ina3221
from coe.services.metering.jtop import open_jtop
from coe.services.metering.machine import metered
from coe.services.metering.nvml import open_nvml
from coe.services.metering.rails import counted_rails
from coe.services.metering.rapl import open_rapl

ORIN_NANO = {
    1: {
        "name": "ina3221",
        "in1_label": "VDD_IN", "in1_input": 5016, "curr1_input": 1200,
        "in2_label": "VDD_CPU_GPU_CV", "in2_input": 5016, "curr2_input": 240,
        "in3_label": "VDD_SOC", "in3_input": 5016, "curr3_input": 320,
        "in7_label": "sum of shunt voltages", "in7_input": 1800, "curr4_input": 1760,
    },
    0: {"name": "pwmfan", "pwm1": 80},
}  # fmt: skip
AGX_ORIN = {
    3: {
        "name": "ina3221",
        "in1_label": "VDD_GPU_SOC", "in1_input": 12008, "curr1_input": 280,
        "in2_label": "VDD_CPU_CV", "in2_input": 12008, "curr2_input": 40,
        "in3_label": "VIN_SYS_5V0", "in3_input": 4968, "curr3_input": 980,
        "in7_label": "sum of shunt voltages", "in7_input": 760,
    },
    # channels that lead nowhere have a label and no figures
    4: {
        "name": "ina3221",
        "in1_label": "NC", "in1_input": 0, "curr1_input": 0,
        "in2_label": "VDDQ_VDD2_1V8AO", "in2_input": 4968, "curr2_input": 80,
        "in3_label": "NC",
    },
}  # fmt: skip
RANGE = {"max_energy_range_uj": 262143328850}
INTEL = {
    "intel-rapl": {"enabled": 1},
    "intel-rapl:0": {"name": "package-0", "energy_uj": 262143000000, **RANGE},
    "intel-rapl:0:0": {"name": "core", "energy_uj": 90, **RANGE},
    "intel-rapl:0:1": {"name": "dram", "energy_uj": 70, "max_energy_range_uj": 65712999613},
    "intel-rapl:1": {"name": "psys", "energy_uj": 5, **RANGE},
    "intel-rapl-mmio:0": {"name": "package-0", "energy_uj": 3, **RANGE},
}  # fmt: skip
AMD = {
    "intel-rapl:0": {"name": "package-0", "energy_uj": 100, "max_energy_range_uj": 65532610987},
    "intel-rapl:0:0": {"name": "core", "energy_uj": 50, "max_energy_range_uj": 65532610987},
    "intel-rapl:1": {"name": "package-1", "energy_uj": 900, "max_energy_range_uj": 65532610987},
    "intel-rapl:1:0": {"name": "core", "energy_uj": 1, "max_energy_range_uj": 65532610987},
}


def write(folder: Path, files: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")


@pytest.fixture
def hwmon(tmp_path):
    """Writes sensors by the number of their folder; returns where sysfs is."""

    def build(sensors):
        for number, files in sensors.items():
            write(tmp_path / f"class/hwmon/hwmon{number}", files)
        return tmp_path

    return build


@pytest.fixture
def powercap(tmp_path):
    """Writes RAPL zones by name; returns where sysfs is."""

    def build(zones, root=tmp_path):
        for name, files in zones.items():
            write(root / "class/powercap" / name, files)
        return root

    return build


@pytest.fixture
def unprivileged(powercap):
    """Writes RAPL zones whose first counter this process may not read."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:

        def build(zones):
            root = powercap(zones, Path(folder))
            root.chmod(0o755)
            (root / "class/powercap/intel-rapl:0/energy_uj").chmod(0)
            if os.geteuid() == 0:
                os.seteuid(65534)
                stack.callback(os.seteuid, 0)
            return root

        yield build


# ---- rails


@pytest.mark.parametrize(
    ("labels", "counted", "scope"),
    [
        (["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"], ["VDD_IN"], "board"),
        (["VDD_CPU_GPU_CV", "VDD_SOC"], ["VDD_CPU_GPU_CV", "VDD_SOC"], "rail"),
        (["POM_5V_CPU", "POM_5V_IN", "POM_5V_GPU"], ["POM_5V_IN"], "board"),
        (
            ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "NC", "VDDQ_VDD2_1V8AO"],
            ["VDD_CPU_CV", "VDD_GPU_SOC", "VIN_SYS_5V0"],
            "rail",
        ),
        (["VIN", "VDD_GPU", "VDD_CPU_SOC_MSS"], ["VIN"], "board"),
        (["NC", ""], [], "rail"),
    ],
)
def test_no_rail_counts_twice(labels, counted, scope):
    assert counted_rails(labels) == (tuple(counted), scope)
    assert counted_rails(reversed(labels)) == (tuple(counted), scope)


# ---- INA3221


def test_an_orin_nano_is_metered_at_its_supply(hwmon, clock):
    root = hwmon(ORIN_NANO)
    found = open_ina3221(root, clock)
    assert (found.name, found.scope, found.covers) == ("ina3221", "board", "VDD_IN")
    clock.seconds = 0.5
    assert found.meter.read().energy_j == pytest.approx(5.016 * 1.2 * 0.5)
    write(root / "class/hwmon/hwmon1", {"curr1_input": 3600})
    clock.seconds = 1.0
    # the power rose in between: the area of the trapezoid
    assert found.meter.read().energy_j == pytest.approx(5.016 * (1.2 * 0.5 + 2.4 * 0.5))


def test_an_agx_orin_is_metered_at_the_rails_that_no_other_feeds(hwmon, clock):
    found = open_ina3221(hwmon(AGX_ORIN), clock)
    assert (found.scope, found.covers) == ("rail", "VDD_CPU_CV + VDD_GPU_SOC + VIN_SYS_5V0")
    clock.seconds = 1.0
    watts = 12.008 * 0.28 + 12.008 * 0.04 + 4.968 * 0.98
    assert found.meter.read().energy_j == pytest.approx(watts)


def test_a_pause_in_sampling_begins_a_new_origin(hwmon, clock):
    meter = open_ina3221(hwmon(ORIN_NANO), clock).meter
    clock.seconds = 60.0
    after = meter.read()
    assert (after.energy_j, after.origin) == (0.0, 1)


def test_a_sensor_that_goes_away_is_an_error_that_names_it(hwmon, clock):
    root = hwmon(ORIN_NANO)
    meter = open_ina3221(root, clock).meter
    (root / "class/hwmon/hwmon1/curr1_input").unlink()
    with pytest.raises(MeterError, match="ina3221: stopped giving figures"):
        meter.read()


def test_a_machine_with_other_sensors_only_has_no_rails(hwmon, clock):
    with pytest.raises(MeterError, match="no sensor with a readable rail"):
        open_ina3221(hwmon({0: {"name": "coretemp", "in1_label": "x"}}), clock)


# ---- RAPL


def test_an_intel_is_metered_at_its_package_once_and_past_the_end_of_its_counter(powercap, clock):
    root = powercap(INTEL)
    found = open_rapl(root, clock)
    assert (found.name, found.scope, found.covers) == ("rapl", "rail", "package-0")
    assert found.meter.read().energy_j == 0
    write(root / "class/powercap/intel-rapl:0", {"energy_uj": 262143328850})
    assert found.meter.read().energy_j == pytest.approx(0.32885)
    write(root / "class/powercap/intel-rapl:0", {"energy_uj": 999999})
    clock.seconds = 2.0
    reading = found.meter.read()
    assert reading.energy_j == pytest.approx(1.32885)
    assert (reading.at_s, reading.origin) == (2.0, 0)


def test_both_packages_of_an_amd_count(powercap, clock):
    root = powercap(AMD)
    found = open_rapl(root, clock)
    assert found.covers == "package-0 + package-1"
    write(root / "class/powercap/intel-rapl:0", {"energy_uj": 2_000_100})
    write(root / "class/powercap/intel-rapl:1", {"energy_uj": 500_900})
    assert found.meter.read().energy_j == pytest.approx(2.5)


def test_a_counter_that_only_root_may_read_says_so_and_what_to_do(unprivileged, clock):
    with pytest.raises(MeterError, match="may only be read by root") as raised:
        open_rapl(unprivileged(INTEL), clock)
    assert "docs/energy.md" in raised.value.remedy


def test_a_virtual_machine_has_no_package(tmp_path, powercap, clock):
    for root in (tmp_path, powercap({"intel-rapl": {"enabled": 0}})):
        with pytest.raises(MeterError, match="no processor package"):
            open_rapl(root, clock)


def test_a_counter_that_goes_away_is_an_error(powercap, clock):
    root = powercap(AMD)
    meter = open_rapl(root, clock).meter
    write(root / "class/powercap/intel-rapl:1", {"energy_uj": "n/a"})
    with pytest.raises(MeterError, match="rapl: stopped giving figures"):
        meter.read()


# ---- NVML


class NvmlError(Exception):
    """As the library's: numbered, one class for all that matters here."""


@dataclass
class Nvml:
    """Answers the calls of ``pynvml`` from a recording: per call and GPU what comes next.

    An exception in the recording is raised; the last answer repeats.
    """

    names: list
    energy_mj: dict = field(default_factory=dict)
    power_mw: dict = field(default_factory=dict)
    init_error: Exception | None = None
    NVMLError: type = NvmlError

    def nvmlInit(self):
        if self.init_error:
            raise self.init_error

    def nvmlDeviceGetCount(self):
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetName(self, handle):
        return self.names[handle]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return self.next(self.energy_mj, handle)

    def nvmlDeviceGetPowerUsage(self, handle):
        return self.next(self.power_mw, handle)

    def next(self, recorded, handle):
        answers = recorded.get(handle, deque([NvmlError("Not Supported")]))
        answer = answers.popleft() if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_the_boards_of_all_gpus_add_up(clock):
    library = Nvml(
        ["NVIDIA A100", "NVIDIA A100"], {0: deque([10_000, 10_000, 12_500]), 1: deque([7_000])}
    )
    found = open_nvml(clock, library)
    assert (found.scope, found.covers) == ("board", "NVIDIA A100 + NVIDIA A100")
    assert found.meter.read().energy_j == pytest.approx(17.0)
    assert found.meter.read().energy_j == pytest.approx(19.5)


def test_a_gpu_without_an_energy_counter_is_integrated(clock):
    library = Nvml(["Quadro P400"], power_mw={0: deque([20_000, 20_000, 30_000])})
    meter = open_nvml(clock, library).meter
    clock.seconds = 1.0
    assert meter.read().energy_j == pytest.approx(20.0)
    clock.seconds = 2.0
    assert meter.read().energy_j == pytest.approx(45.0)


def test_a_jetson_s_gpu_reports_neither(clock):
    with pytest.raises(MeterError, match="neither energy nor power of Orin"):
        open_nvml(clock, Nvml(["Orin (nvgpu)"]))


def test_without_a_driver_there_is_no_gpu(clock):
    library = Nvml([], init_error=NvmlError("NVML Shared Library Not Found"))
    with pytest.raises(MeterError, match="NVML Shared Library Not Found"):
        open_nvml(clock, library)


def test_a_gpu_that_is_lost_is_an_error(clock):
    library = Nvml(["NVIDIA L4"], {0: deque([1000, NvmlError("GPU is lost")])})
    meter = open_nvml(clock, library).meter
    with pytest.raises(MeterError, match="GPU is lost"):
        meter.read()


# ---- jtop


class JtopException(Exception):
    """As the library's."""


@dataclass
class Jtop:
    """Module and client of jetson-stats in one: a message after another, each as recorded."""

    message: dict
    start_error: Exception | None = None
    running: bool = True
    lost: Exception | None = None
    JtopException: type = JtopException

    def jtop(self, interval):
        return self

    def start(self):
        if self.start_error:
            raise self.start_error

    def ok(self, spin):
        assert spin, "it would wait for the next message"
        if self.lost:
            raise self.lost
        return self.running

    @property
    def power(self):
        return self.message

    def close(self):
        self.running = False


def rail(power_mw, kind="INA3221"):
    return {"type": kind, "volt": 5000, "curr": power_mw // 5, "power": power_mw, "avg": power_mw}


def nano_message(power_mw):
    rails = {"VDD_SOC": rail(1000), "battery": rail(9000, "Battery")}
    return {"rail": rails, "tot": rail(power_mw) | {"name": "VDD_IN"}}


def test_the_service_of_an_orin_nano_is_integrated_message_by_message(clock):
    library = Jtop(nano_message(6000))
    found = open_jtop(clock, library)
    assert (found.scope, found.covers) == ("board", "VDD_IN")
    clock.seconds = 0.4
    # nothing new yet
    assert found.meter.read().at_s == 0.0
    library.message = nano_message(8000)
    clock.seconds = 1.0
    assert found.meter.read().energy_j == pytest.approx(7.0)


def test_the_total_of_an_agx_orin_is_not_the_service_s_which_counts_memory_twice(clock):
    rails = {"VDD_GPU_SOC": 3360, "VDD_CPU_CV": 480, "VIN_SYS_5V0": 4870, "VDDQ_VDD2_1V8AO": 400}
    message = {"rail": {k: rail(v) for k, v in rails.items()}, "tot": {"power": 9110, "avg": 9110}}
    found = open_jtop(clock, Jtop(message))
    assert (found.scope, found.covers) == ("rail", "VDD_CPU_CV + VDD_GPU_SOC + VIN_SYS_5V0")


@pytest.mark.parametrize("error", [JtopException("The jtop.service\nis not active"), OSError("no")])
def test_a_service_that_does_not_run_is_an_error_of_one_line(clock, error):
    with pytest.raises(MeterError, match="its service does not answer") as raised:
        open_jtop(clock, Jtop({}, start_error=error))
    assert "\n" not in str(raised.value)


def test_a_service_without_rails_is_an_error(clock):
    library = Jtop({})
    with pytest.raises(MeterError, match="knows no power rail"):
        open_jtop(clock, library)
    assert not library.running


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"running": False}, "its service has ended"),
        ({"lost": JtopException("Lost connection")}, "Lost connection"),
        ({"message": {"rail": {}}}, "rail 'VDD_IN' is gone"),
    ],
)
def test_a_service_that_goes_away_is_an_error(clock, change, reason):
    library = Jtop(nano_message(6000))
    meter = open_jtop(clock, library).meter
    for name, value in change.items():
        setattr(library, name, value)
    with pytest.raises(MeterError, match=reason):
        meter.read()


# ---- detection


def test_a_survey_keeps_the_order_and_says_why_not(hwmon, powercap, clock):
    hwmon(ORIN_NANO)
    found, failed = survey(("rapl", "ina3221"), powercap(AMD), clock)
    assert [each.name for each in found] == ["rapl", "ina3221"]
    assert failed == []
    assert str(found[0]) == "rapl, scope rail: package-0 + package-1"


def test_every_kind_says_why_it_is_not_here(tmp_path, clock):
    found, failed = survey(ALL, tmp_path, clock)
    # a test machine may have a GPU or the service of a Jetson
    assert {each.name for each in found} <= {"jtop", "nvml"}
    assert {error.meter for error in failed} | {each.name for each in found} == set(ALL)
    with pytest.raises(MeterError):
        open_meter("rapl", tmp_path, clock)
    assert set(ON_CPU) < set(ALL)


# ---- the machine of the gateway


async def test_auto_takes_the_widest_meter_that_sees_a_processor(hwmon, powercap, clock):
    said = []
    hwmon(ORIN_NANO)
    async with metered(MeteringSection(sysfs=powercap(INTEL)), said.append, clock) as account:
        assert account.scope == "board"
    assert said == ["energy of embedded experts: measured by ina3221, scope board: VDD_IN"]


async def test_the_configured_meter_and_idle_power_are_used(hwmon, powercap, clock):
    hwmon(ORIN_NANO)
    section = MeteringSection(meter="rapl", idle_w=3.0, sysfs=powercap(INTEL))
    async with metered(section, now=clock) as account:
        assert (account.scope, account.idle_w) == ("rail", 3.0)


async def test_modelled_looks_at_no_meter(hwmon):
    async with metered(MeteringSection(meter="modelled", sysfs=hwmon(ORIN_NANO))) as account:
        assert account is None


async def test_a_meter_that_was_asked_for_and_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"metering\.meter: rapl: no processor package"):
        async with metered(MeteringSection(meter="rapl", sysfs=tmp_path)):
            raise AssertionError("it began")


async def test_a_counter_that_is_there_and_not_readable_is_said(powercap, unprivileged):
    said = []
    section = MeteringSection(sysfs=unprivileged(INTEL))
    async with metered(section, said.append) as account:
        assert account is None
    (line,) = said
    assert "modelled, not measured: rapl:" in line
    assert "may only be read by root" in line
