"""The device profiles that ship, held against physics, and how a configuration names them."""

import pytest

from coe.config import DATA, load_config, shipped_profiles
from coe.device import DeviceProfile
from coe.errors.files import ConfigError
from coe.profiles import Library, closest, read_profiles
from coe.yamlfile import read_yaml

LIBRARY = read_yaml(DATA / "devices.yaml", Library)
NAMES = list(LIBRARY.profiles)
# LPDDR and HBM take some 4 pJ a bit; no memory of these devices reads for less than one
READ_J_PER_GB = 8e9 * 1e-12
SHIPPED = "rtx-4090/llama-3-8b-q4_k_m-llama.cpp"
GOOD = """\
experts:
  - {id: far, kind: http, base_url: "http://h/v1", device: DEVICE}
"""


def test_there_are_enough_and_every_device_is_used():
    assert len(NAMES) >= 20
    assert {p.hardware for p in LIBRARY.profiles.values()} == set(LIBRARY.hardware)


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_says_where_it_comes_from(name):
    profile = LIBRARY.profiles[name]
    assert profile.source
    assert profile.measured
    assert profile.scope in ("rail", "board", "wall")
    # only a source that measures times and joules of both phases leaves nothing to assume
    assert profile.assumed or "edgereasoning" in profile.source


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_read_no_faster_than_the_memory_allows(name):
    profile = LIBRARY.profiles[name]
    gb_per_s = profile.weights_gb * profile.decode_tokens_per_s
    assert gb_per_s <= LIBRARY.hardware[profile.hardware].memory_gb_s


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_of_the_parameters(name):
    profile = LIBRARY.profiles[name]
    bits = 8 * profile.weights_gb / profile.active_params_b
    expected = {  # small experts keep large tables of embeddings at more bits than the rest
        "fp16": (14.5, 16.5), "F16": (14.5, 16.5), "bf16": (14.5, 16.5), "fp8": (7.5, 9.0),
        "Q4_K_M": (4.4, 5.2) if profile.active_params_b > 1.5 else (4.4, 8.1),
        "int4": (4.0, 4.8), "nf4": (4.0, 6.0),
    }  # fmt: skip
    low, high = expected[profile.precision]
    assert low <= bits <= high


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prompt_tokens", [256, 2048, 8192])
def test_prompts_are_read_no_faster_than_the_arithmetic_allows(name, prompt_tokens):
    section = LIBRARY.profiles[name]
    seconds = section.profile(name).ttft_ms(prompt_tokens) / 1000
    teraflops = 2e-3 * section.active_params_b * prompt_tokens / seconds
    assert teraflops <= LIBRARY.hardware[section.hardware].fp16_tflops


@pytest.mark.parametrize("name", NAMES)
def test_power_is_within_the_limit_of_the_device(name):
    profile = LIBRARY.profiles[name]
    limit_w = LIBRARY.hardware[profile.hardware].power_limit_w
    assert 0 < profile.decode_w * profile.streams <= limit_w
    assert 0 < profile.prefill_w <= limit_w


@pytest.mark.parametrize("name", NAMES)
def test_a_token_takes_at_least_what_reading_the_weights_takes(name):
    section = LIBRARY.profiles[name]
    shared_j = READ_J_PER_GB * section.weights_gb / section.streams
    assert shared_j <= section.profile(name).token_j <= 50


def test_of_one_device_alone_an_expert_a_fifth_larger_is_slower():
    # eager transformers are bound by launches, not by memory
    alone = [p for p in LIBRARY.profiles.values() if p.streams == 1 and p.engine != "transformers"]
    pairs = [
        (small, large)
        for small in alone
        for large in alone
        if (small.hardware, small.engine) == (large.hardware, large.engine)
        and 1.2 * small.weights_gb < large.weights_gb
    ]
    assert len(pairs) > 20
    for small, large in pairs:
        assert small.decode_tokens_per_s > large.decode_tokens_per_s, (small, large)


def config(tmp_path, text):
    (tmp_path / "coe.yaml").write_text(text)
    return load_config(tmp_path / "coe.yaml")


def test_an_expert_may_run_on_a_shipped_device_without_any_section(tmp_path):
    spec = config(tmp_path, GOOD.replace("DEVICE", SHIPPED)).specs["far"]
    section = LIBRARY.profiles[SHIPPED]
    assert spec.profile == section.profile(SHIPPED)
    assert isinstance(spec.profile, DeviceProfile)
    assert spec.profile.decode_tokens_per_s == section.decode_tokens_per_s
    assert spec.profile.source == section.source


def test_a_section_of_its_own_wins_over_a_shipped_one(tmp_path):
    figures = "{ttft_b_ms: 1, decode_tokens_per_s: 2, prefill_w: 3, decode_w: 4}"
    own = f"devices:\n  {SHIPPED}: {figures}\n"
    spec = config(tmp_path, own + GOOD.replace("DEVICE", SHIPPED)).specs["far"]
    assert spec.profile == DeviceProfile(SHIPPED, 0, 1, 0, 2, 3, 4)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("rtx-4090/llama-3-8b-q4_k_m-lama.cpp", f"use one of {SHIPPED}"),
        ("RTX-4090/Llama-3-8B-Q4_K_M-llama.cpp", f"use one of {SHIPPED}"),
        ("zzz", "add it under devices, or use a shipped one (coe devices list"),
    ],
)
def test_an_unknown_device_is_named_with_what_is_like_it(tmp_path, device, said):
    with pytest.raises(ConfigError) as refused:
        config(tmp_path, GOOD.replace("DEVICE", device))
    place = "coe.yaml:2: experts.0.device: expert 'far' runs on unknown device"
    assert f"{place} {device!r}" in str(refused.value)
    assert said in str(refused.value)


def test_the_shipped_profiles_are_read_once():
    assert shipped_profiles() is shipped_profiles()
    assert list(shipped_profiles()) == NAMES


def test_a_library_with_unknown_hardware_or_no_source_is_refused(tmp_path):
    text = (DATA / "devices.yaml").read_text()
    path = tmp_path / "devices.yaml"
    path.write_text(text.replace("    hardware: b200\n", "    hardware: b300\n"))
    with pytest.raises(
        ConfigError,
        match=r"profiles\..*\.hardware: .* runs on unknown hardware 'b300': use one of orin-agx",
    ):
        read_profiles(path)
    path.write_text(text.replace("    scope: rail\n", "", 1))
    with pytest.raises(ConfigError, match=r"devices.yaml:\d+: profiles\..*\.scope: is missing"):
        read_profiles(path)


def test_the_closest_names_come_first_and_strange_ones_have_none():
    assert closest("bord", ["board", "rail", "bored"])[0] in ("board", "bored")
    assert closest("xyz", ["board"]) == []
