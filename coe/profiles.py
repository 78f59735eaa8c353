"""Device profiles as files hold them: an owner's own, and those that ship with the package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from coe.device import DeviceProfile, Scope
from coe.yamlfile import Name, NonNegative, Positive, Section, read_yaml, wrong_field

Words = Annotated[str, Field(min_length=1)]


class DeviceSection(Section):
    """One device profile; see `coe.device.DeviceProfile` for the formulas."""

    ttft_a_ms: NonNegative = 0.0
    ttft_b_ms: NonNegative
    ttft_c_ms: NonNegative = 0.0
    decode_tokens_per_s: Positive
    prefill_w: NonNegative
    decode_w: NonNegative
    scope: Scope = "board"
    source: str = ""

    def profile(self, name: str) -> DeviceProfile:
        """The noun that the deciding layers see."""
        return DeviceProfile(name, **self.model_dump(include=set(DeviceSection.model_fields)))


class HardwareSection(Section):
    """What the maker says of a device: bounds that no profile can exceed.

    Of several chips that share the work (tensor parallel), the sums.
    """

    about: Words
    memory_gb_s: Positive
    fp16_tflops: Positive
    power_limit_w: Positive


class ShippedSection(DeviceSection):
    """A profile from public figures, with what was read, computed and assumed.

    ``weights_gb`` are read from memory for every output token. ``streams`` requests were served
    at once when it was measured: the device draws about that many times the watts of one.
    ``idle`` says whether the watts include the device's idle power.
    """

    hardware: Words
    expert: Words
    precision: Words
    engine: Words
    active_params_b: Positive
    weights_gb: Positive
    streams: Annotated[int, Field(ge=1)] = 1
    idle: Literal["included", "subtracted"]
    scope: Scope
    source: Words
    measured: Words
    derived: str = ""
    assumed: str = ""


class Library(Section):
    """The whole of a file of shipped profiles."""

    hardware: dict[Name, HardwareSection]
    profiles: dict[Name, ShippedSection]

    @model_validator(mode="after")
    def _consistent(self) -> Library:
        for name, profile in self.profiles.items():
            if profile.hardware not in self.hardware:
                known = ", ".join(self.hardware)
                raise wrong_field(
                    f"{name} runs on unknown hardware {profile.hardware!r}: use one of {known}",
                    ("profiles", name, "hardware"),
                )
        return self


def read_profiles(path: Path) -> Mapping[str, ShippedSection]:
    """The profiles of a file, by name.

    Raises
    ------
    ConfigError
        The file is absent, not YAML, or a field is wrong.
    """
    return read_yaml(path, Library).profiles


def closest(name: str, known: Iterable[str]) -> list[str]:
    """Up to five known names that are spelled most like ``name``, best first; perhaps none."""
    lowered = {each.lower(): each for each in known}
    return [lowered[each] for each in get_close_matches(name.lower(), lowered, n=5, cutoff=0.5)]
