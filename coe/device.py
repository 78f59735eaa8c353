"""The device profile: how fast an expert runs on a device, and what power that draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Amount = TypeVar("Amount", float, "NDArray[np.float64]")
"""One number, or an array of them, taken one by one."""

Scope = Literal["rail", "board", "wall"]
"""What a figure in watts covers: some rails of a module, the board, or the whole machine."""


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """How fast one expert runs on one device, and what power that draws.

    Prefill and decode are costed apart (MoE2's delay and energy model; reconstruction,
    equations ours): ``TTFT = a I^2 + b I + c`` for I prompt tokens, ``O / v`` for O output
    tokens, joules = watts of each phase times its duration.

    Parameters
    ----------
    name : device and expert, for people.
    ttft_a_ms, ttft_b_ms, ttft_c_ms : per squared prompt token, per prompt token, constant.
    decode_tokens_per_s : output rate of one request alone.
    prefill_w, decode_w : power drawn above idle by each phase.
    scope : where the power is defined: a rail, the board, or the wall plug.
    source : where the figures come from.
    """

    name: str
    ttft_a_ms: float
    ttft_b_ms: float
    ttft_c_ms: float
    decode_tokens_per_s: float
    prefill_w: float
    decode_w: float
    scope: Scope = "board"
    source: str = ""

    def ttft_ms(self, prompt_tokens: Amount) -> Amount:
        """Milliseconds to the first token."""
        return (self.ttft_a_ms * prompt_tokens + self.ttft_b_ms) * prompt_tokens + self.ttft_c_ms

    def decode_ms(self, output_tokens: Amount) -> Amount:
        """Milliseconds to generate ``output_tokens``."""
        return 1000.0 * output_tokens / self.decode_tokens_per_s

    @property
    def token_j(self) -> float:
        """Joules of an output token."""
        return self.decode_w / self.decode_tokens_per_s

    def energy_j(self, prompt_tokens: Amount, output_tokens: Amount) -> Amount:
        """Joules of a whole request."""
        prefill_j = self.prefill_w * self.ttft_ms(prompt_tokens) / 1000.0
        return prefill_j + self.decode_w * self.decode_ms(output_tokens) / 1000.0
