"""What an engine says when it is asked: its health, its first answer, its load."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from coe.errors.experts import ExpertUnavailableError

# of a shorter time the clocks of engines say nothing: a request of one token measures as 1e-6 s
_MEASURABLE_S = 0.02
_KEPT_REASON = 200

# what engines call the same thing: llama.cpp first, then vLLM
_NAMES: Final[Mapping[str, str]] = {
    "llamacpp:requests_processing": "n_running",
    "llamacpp:requests_deferred": "n_waiting",
    "llamacpp:tokens_predicted_total": "output_tokens",
    "llamacpp:tokens_predicted_seconds_total": "decode_s",
    "vllm:num_requests_running": "n_running",
    "vllm:num_requests_waiting": "n_waiting",
    "vllm:request_generation_tokens_sum": "output_tokens",
    "vllm:request_decode_time_seconds_sum": "decode_s",
}


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine has to do, and what it has done since it started.

    Parameters
    ----------
    n_running, n_waiting : requests in its slots, and in its queue.
    output_tokens : tokens of all finished answers.
    decode_s : seconds that their generation took, added up request by request.
    """

    n_running: int = 0
    n_waiting: int = 0
    output_tokens: float = 0.0
    decode_s: float = 0.0

    @property
    def idle(self) -> bool:
        """Whether no request is running or waiting."""
        return self.n_running == self.n_waiting == 0

    def tokens_per_s(self, since: Load) -> float:
        """Output rate of the mean request that ended after ``since``; 0 when there was none."""
        decode_s = self.decode_s - since.decode_s
        tokens = self.output_tokens - since.output_tokens
        return tokens / decode_s if decode_s >= _MEASURABLE_S else 0.0


def read_load(page: str) -> Load | None:
    """The load in a Prometheus page of llama.cpp or vLLM; ``None`` when it says nothing of it."""
    values: dict[str, float] = {}
    for name, value in _samples(page):
        if (field := _NAMES.get(name)) and math.isfinite(value):
            values[field] = values.get(field, 0.0) + value
    if "n_running" not in values:
        return None
    return Load(
        n_running=round(values["n_running"]),
        n_waiting=round(values.get("n_waiting", 0.0)),
        output_tokens=values.get("output_tokens", 0.0),
        decode_s=values.get("decode_s", 0.0),
    )


def _samples(page: str) -> Iterator[tuple[str, float]]:
    """Name and value of every sample, without its labels."""
    for line in page.splitlines():
        name, _, value = line.rpartition(" ")
        if name and not line.startswith("#"):
            try:
                yield name.partition("{")[0], float(value)
            except ValueError:
                continue


@dataclass(frozen=True, slots=True)
class Probe:
    """Asks one engine.

    Parameters
    ----------
    client : with a timeout.
    address : ``http://host:port``.
    key : sent as bearer token.
    """

    client: httpx.AsyncClient
    address: str
    key: str | None = None

    async def healthy(self) -> bool:
        """Whether ``/health`` answers, and well."""
        return (await self._get("/health")) is not None

    async def load(self) -> Load | None:
        """What ``/metrics`` says; ``None`` when it cannot be asked now, or says nothing of it."""
        page = await self._get("/metrics")
        return None if page is None else read_load(page)

    async def first_answer(self, expert_id: str, body: Mapping[str, Any]) -> None:
        """Returns once a chat request is answered.

        Raises
        ------
        ExpertUnavailableError
            It was not, or not well.
        """
        url = f"{self.address}/v1/chat/completions"
        try:
            response = await self.client.post(
                url, json=dict(body), headers=self._headers(), timeout=None
            )
        except httpx.HTTPError as error:
            reason = f"its first answer failed ({type(error).__name__})"
            raise ExpertUnavailableError(expert_id, reason) from error
        if not response.is_success:
            said = response.text[:_KEPT_REASON]
            reason = f"its first answer was HTTP {response.status_code}: {said}"
            raise ExpertUnavailableError(expert_id, reason)

    async def _get(self, path: str) -> str | None:
        try:
            response = await self.client.get(f"{self.address}{path}", headers=self._headers())
        except httpx.HTTPError:
            return None
        return response.text if response.is_success else None

    def _headers(self) -> dict[str, str]:
        # llama.cpp's server drops a kept connection now and then
        headers = {"connection": "close"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        return headers
