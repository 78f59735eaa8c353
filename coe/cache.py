"""Exact copies of answers: who asks again what was answered gets the same, for nothing."""

from __future__ import annotations

import hmac
import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coe.core import Request
from coe.decision import CategoryGuess, Decision, Receipt
from coe.standing import Origin, Standing
from coe.stock import single_text

ENTRY_BYTES = 1000
"""What is counted for an entry besides its text: key, figures, names."""

# what may differ between two requests that have the same answer
_MANNERS = frozenset({"stream", "stream_options", "user"})


@dataclass(slots=True)
class AnswerCache:
    """Answers of one gateway, in memory, the least recently used first out. A `coe.stock.Stock`.

    An answer is found by an HMAC over tenant, policy and request, made with a secret of this
    process: prompts are not kept. Answers are, in clear. May be used from several threads.

    Parameters
    ----------
    max_entries, max_bytes : most answers, and most bytes of them all, `ENTRY_BYTES` each included.
    ttl_s : age at which an answer is forgotten.
    now : monotonic seconds.
    """

    max_entries: int
    max_bytes: int
    ttl_s: float
    now: Callable[[], float] = time.monotonic
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    n_bytes: int = field(default=0, init=False)
    _held: OrderedDict[bytes, tuple[float, Standing]] = field(
        default_factory=OrderedDict, init=False, repr=False
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __len__(self) -> int:
        """How many answers are held, those too old among them."""
        return len(self._held)

    def ready(self, request: Request, guess: CategoryGuess) -> Standing | None:
        """The answer given before to this very request, by an expert that may answer it now."""
        if not self._held or not _may_be_copied(request):
            return None
        key = self._key(request)
        with self._lock:
            kept = self._held.get(key)
            if kept is None:
                return None
            expires_s, answer = kept
            if self.now() >= expires_s:
                self._drop(key)
                return None
            self._held.move_to_end(key)
        return answer if _is_allowed(request, answer) else None

    def recording(self, request: Request, decision: Decision) -> Recording | None:
        """What is to be fed the answer to this decision; ``None``: it will not be kept."""
        name = decision.expert_id
        single = decision.selection.mode.kind == "single" and name not in request.standing
        if not (single and _may_be_copied(request)) or request.passages_tokens:
            return None
        return Recording(self, self._key(request), decision, request.stream)

    def keep(self, key: bytes, answer: Standing) -> None:
        """Hold an answer; one that is larger than all that may be held is not."""
        n_bytes = _size(answer)
        if n_bytes > self.max_bytes:
            return
        with self._lock:
            if key in self._held:
                self._drop(key)
            self._held[key] = (self.now() + self.ttl_s, answer)
            self.n_bytes += n_bytes
            while self.n_bytes > self.max_bytes or len(self._held) > self.max_entries:
                self._drop(next(iter(self._held)))

    def _drop(self, key: bytes) -> None:
        self.n_bytes -= _size(self._held.pop(key)[1])

    def _key(self, request: Request) -> bytes:
        asked = {k: v for k, v in request.payload.items() if k not in _MANNERS}
        whose = (request.tenant, request.policy.name, asked)
        text = json.dumps(whose, sort_keys=True, separators=(",", ":"))
        return hmac.digest(self.secret, text.encode(), "sha256")


@dataclass(slots=True)
class Recording:
    """One answer, read along while it passes; given up as soon as it is more than plain text."""

    cache: AnswerCache
    key: bytes
    decision: Decision
    stream: bool
    _texts: list[str] = field(default_factory=list)
    _rest: list[bytes] = field(default_factory=list)
    _n_waiting: int = 0
    _finished: bool = False
    _odd: bool = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body; what it costs is in proportion to its length."""
        self._n_waiting += len(piece)
        if self._odd or self._n_waiting > self.cache.max_bytes:
            self._odd = True
            self._rest.clear()
            return
        self._rest.append(piece)
        if self.stream and b"\n" in piece:
            *lines, rest = b"".join(self._rest).split(b"\n")
            self._rest, self._n_waiting = [rest], len(rest)
            for line in lines:
                if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
                    self._take(line[5:], "delta")

    def keep(self, receipt: Receipt) -> None:
        """Hold the answer, which has come to its end, if it is complete and plain text."""
        if not self.stream and not self._odd:
            self._take(b"".join(self._rest), "message")
        text = "".join(self._texts)
        if self._odd or not self._finished or not text:
            return
        expected = self.decision.predicted
        origin = Origin(self.decision.decision_id, receipt.expert_id)
        answer = Standing(
            text=text,
            n_tokens=receipt.output_tokens,
            quality=expected.quality,
            quality_se=expected.quality_se,
            why=f"as {origin.expert_id} answered before",
            origin=origin,
        )
        self.cache.keep(self.key, answer)

    def _take(self, data: bytes, part: str) -> None:
        """One event of a stream, or the whole document."""
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        choices = document.get("choices") if isinstance(document, dict) else None
        if not isinstance(choices, list) or len(choices) > 1 or document.get("error") is not None:
            self._odd = True
            return
        for choice in choices:
            self._odd = self._odd or not self._understood(choice, part)

    def _understood(self, choice: Any, part: str) -> bool:
        """Whether a choice is text and the end of it, and nothing else."""
        said = choice.get(part) if isinstance(choice, Mapping) else None
        if not isinstance(said, Mapping) or choice.get("index") or choice.get("logprobs"):
            return False
        if any(value for name, value in said.items() if name not in ("role", "content")):
            return False
        content, finish = said.get("content"), choice.get("finish_reason")
        if not isinstance(content, str | None) or finish not in (None, "stop"):
            return False
        self._texts.append(content or "")
        self._finished = self._finished or finish == "stop"
        return True


def _may_be_copied(request: Request) -> bool:
    """Whether the same request may get the same answer, as far as it says."""
    certain = request.payload.get("temperature") in (None, 0)
    return request.cache and certain and single_text(request) and request.retrieve != "always"


def _is_allowed(request: Request, answer: Standing) -> bool:
    """Whether the expert that gave the answer may answer this request."""
    assert answer.origin is not None
    name, policy = answer.origin.expert_id, request.policy
    listed = request.allow is None or name in request.allow
    barred = name in request.deny or name in policy.ban
    return listed and not barred and policy.force <= {name}


def _size(answer: Standing) -> int:
    return ENTRY_BYTES + len(answer.text.encode(errors="replace"))
