"""The body of an answer: how it is written, and what it says of itself."""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from coe.frozen import quick

DONE = b"data: [DONE]\n\n"
_EVENT = b"\ndata:"
_END_MARKS = (b"data: [DONE]", b"data:[DONE]")
# no text of an answer holds this: its quotes are escaped
_FINISHED = re.compile(rb'"finish_reason": ?"')
_KEPT_TAIL = 16_384
_MOST_TOKENS = 10_000_000
_DIGITS_AS_0 = bytes(ord("0") if chr(sign).isdecimal() else 0 for sign in range(256))


class Whole(bytes):
    """The body of a whole answer that has been read: whoever needs its object takes that."""

    document: dict[str, Any]


@quick
@dataclass(frozen=True, slots=True)
class Reading:
    """Token counts of an answer, and whether it came to its proper end.

    ``prompt_tokens`` is ``None`` when the expert did not state it. ``stated`` is false when
    ``output_tokens`` was counted from the events of the stream.
    """

    prompt_tokens: int | None
    output_tokens: int
    stated: bool
    ended: bool


@dataclass(slots=True)
class AnswerMeter:
    """Reads along while the pieces of a body pass, at the cost of a search per piece.

    What an expert states of its tokens counts as far as it can be true; else they are counted.

    Parameters
    ----------
    most_prompt_tokens, most_output_tokens : the longest prompt, and all its answers together, that
        an expert may truly state.
    """

    stream: bool
    n_answers: int = 1
    most_prompt_tokens: int = _MOST_TOKENS
    most_output_tokens: int = _MOST_TOKENS
    _n_events: int = 0
    _seam: bytes = b"\n"
    _kept: list[bytes] = field(default_factory=list)
    _n_kept: int = 0

    def feed(self, piece: bytes) -> None:
        """Take note of the next piece."""
        self._kept.append(piece)
        if not self.stream:
            self._n_events += not piece
            return
        self._n_events += piece.count(_EVENT)
        # a marker may be split between two pieces: look at the seam too
        seam = self._seam + piece[: len(_EVENT) - 1]
        self._n_events += seam.count(_EVENT)
        self._seam = (piece if len(piece) >= len(_EVENT) else seam)[1 - len(_EVENT) :]
        self._n_kept += len(piece)
        if self._n_kept > 2 * _KEPT_TAIL:
            self._kept = [self._tail()]
            self._n_kept = _KEPT_TAIL

    @property
    def n_tokens(self) -> int:
        """Tokens seen so far, give or take the events that end a stream.

        0 of a whole answer that comes in one piece.
        """
        return max(0, self._n_events - self.n_answers)

    def reading(self) -> Reading:
        """What the pieces so far say."""
        if not self.stream:
            # besides one empty piece a token there is one for the role of each answer
            return self._read_document(together(self._kept), self.n_tokens)
        tail = self._tail()
        ended = tail.rstrip().endswith(_END_MARKS)
        # besides one event a token there are role and finish reason, and the end mark
        n_finished = self.n_answers if ended else len(_FINISHED.findall(tail))
        n_other = self.n_answers + min(n_finished, self.n_answers) + ended
        return self._reading(_last_usage(tail), max(0, self._n_events - n_other), ended)

    def _tail(self) -> bytes:
        return b"".join(self._kept)[-_KEPT_TAIL:]

    def _read_document(self, body: bytes, counted: int) -> Reading:
        document = object_in(body)
        if document is None:
            return Reading(None, counted, False, False)
        said = (_said_bytes(document) + 3) // 4
        return self._reading(_usage(document), max(said, counted), True)

    def _reading(self, usage: tuple[int, int] | None, counted: int, ended: bool) -> Reading:
        """What an expert states, or the count where it states nothing, or what cannot be."""
        if usage is None or not self._can_be(*usage, counted):
            return Reading(None, counted, False, ended)
        prompt, output = usage
        # some state only one of several answers
        if self.n_answers > 1 and counted > output:
            return Reading(prompt, counted, False, ended)
        return Reading(prompt, output, True, ended)

    def _can_be(self, prompt: int, output: int, counted: int) -> bool:
        # an expert may take a few events to say nothing
        silent = output > 0 or counted <= 2 * self.n_answers
        return silent and prompt <= self.most_prompt_tokens and output <= self.most_output_tokens


def chunk(
    answer_id: str,
    expert_id: str,
    delta: dict[str, Any],
    finish: str | None,
    usage: tuple[int, int] | None = None,
    index: int = 0,
) -> bytes:
    """One server-sent event of a chat completion stream; ``usage`` as in `pieces_of`."""
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    document: dict[str, Any] = {
        "id": answer_id,
        "object": "chat.completion.chunk",
        "created": 0,
        "model": expert_id,
        "choices": [choice],
    }
    if usage is not None:
        document["usage"] = _stated(*usage)
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def completion(
    answer_id: str,
    expert_id: str,
    text: str,
    prompt_tokens: int,
    output_tokens: int,
    finish: str,
    n_answers: int = 1,
) -> bytes:
    """The JSON document of a chat completion, with the same text ``n_answers`` times."""
    message = {"role": "assistant", "content": text}
    return json.dumps(
        {
            "id": answer_id,
            "object": "chat.completion",
            "created": 0,
            "model": expert_id,
            "choices": [
                {"index": index, "message": message, "finish_reason": finish}
                for index in range(n_answers)
            ],
            "usage": _stated(prompt_tokens, output_tokens),
        }
    ).encode()


def _stated(prompt_tokens: int, output_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
    }


async def before_end(pieces: AsyncIterator[bytes], event: bytes) -> AsyncIterator[bytes]:
    """The pieces of a stream with one more event before its end mark; without a mark, as they are.

    Nothing else is changed. Held back is only what may be the beginning of the mark.
    """
    held, at_line_start = b"", True
    async for piece in pieces:
        held += piece
        mark = _mark_in(held, at_line_start)
        if mark is not None:
            yield held[:mark] + event + held[mark:]
            break
        cut = held.rfind(b"\n") + 1
        line_starts = at_line_start or cut > 0
        if not (line_starts and any(mark.startswith(held[cut:]) for mark in _END_MARKS)):
            cut = len(held)
        if cut:
            yield held[:cut]
            at_line_start = held[:cut].endswith(b"\n")
            held = held[cut:]
    else:
        if held:
            yield held
    async for piece in pieces:
        yield piece


def _mark_in(text: bytes, at_line_start: bool) -> int | None:
    """Where the end mark begins that stands at the start of a line."""
    for mark in _END_MARKS:
        if at_line_start and text.startswith(mark):
            return 0
        if (found := text.find(b"\n" + mark)) >= 0:
            return found + 1
    return None


def pieces_of(
    answer_id: str,
    expert_id: str,
    tokens: list[str],
    finish: str = "stop",
    usage: tuple[int, int] | None = None,
) -> Iterator[bytes]:
    """The events of a stream that says ``tokens``, the end mark included.

    Parameters
    ----------
    usage : prompt and output tokens, stated with the reason to finish; ``None``: left out.
    """
    yield chunk(answer_id, expert_id, {"role": "assistant", "content": ""}, None)
    for token in tokens:
        yield chunk(answer_id, expert_id, {"content": token}, None)
    yield chunk(answer_id, expert_id, {}, finish, usage)
    yield DONE


def together(pieces: Sequence[bytes]) -> bytes:
    """The pieces of a body as one; a single one stays what it is."""
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def object_in(text: bytes) -> dict[str, Any] | None:
    """The JSON object that ``text`` holds, if it holds one; that of a `Whole` is not read again.

    Numbers are as they stand there; NaN, and what no finite number is near, is ``None``.
    """
    if isinstance(text, Whole):
        return text.document
    try:
        document = _read(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _read(text: bytes) -> Any:
    if not _may_hold_long_number(text):
        try:
            return orjson.loads(text)
        except ValueError:  # not a number, half of a surrogate pair, another encoding
            pass
    return _LENIENT.decode(text.decode(json.detect_encoding(text), "surrogatepass"))


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


_LENIENT = json.JSONDecoder(parse_constant=lambda name: None, parse_float=_finite)


def _may_hold_long_number(text: bytes) -> bool:
    """Whether an integer beyond 64 bits may be in it, which orjson takes for a fraction.

    It has 19 digits at least, and three in a row of every sixth sign: most texts have none such,
    and to look at all signs takes as long as to parse them.
    """
    sixth = text[::6].translate(_DIGITS_AS_0)
    return b"0" * 3 in sixth and b"0" * 19 in text.translate(_DIGITS_AS_0)


def _said_bytes(document: dict[str, Any]) -> int:
    """Length of the text of all choices."""
    n_bytes = 0
    choices = document.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        message = choice.get("message") if isinstance(choice, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        n_bytes += len(content.encode(errors="replace")) if isinstance(content, str) else 0
    return n_bytes


def _last_usage(tail: bytes) -> tuple[int, int] | None:
    """Token counts in the last event that states them."""
    end = len(tail)
    while (at := max(tail.rfind(b'"usage"', 0, end), tail.rfind(b'"timings"', 0, end))) >= 0:
        end = tail.rfind(b"\n", 0, at) + 1
        line, _, _ = tail[end:].partition(b"\n")
        document = object_in(line[5:]) if line.startswith(b"data:") else None
        usage = _usage(document) if document else None
        if usage is not None:
            return usage
    return None


def _usage(document: dict[str, Any]) -> tuple[int, int] | None:
    """Prompt and output tokens from ``usage``, or from llama.cpp's ``timings``."""
    usage, timings = document.get("usage"), document.get("timings")
    if isinstance(usage, dict):
        counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    elif isinstance(timings, dict):
        cached, fresh = timings.get("cache_n", 0), timings.get("prompt_n")
        known = isinstance(cached, int) and isinstance(fresh, int)
        counts = (cached + fresh if known else None, timings.get("predicted_n"))
    else:
        return None
    prompt, output = (n if type(n) is int and n >= 0 else None for n in counts)
    return None if prompt is None or output is None else (prompt, output)
