"""An expert's stream as it may be passed on: whole events, each plain and on one line."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

import orjson

from coe.answer import DONE
from coe.errors.experts import ExpertUntrustedError

LINE_BYTES = 1024 * 1024
"""Longest event of a stream."""

_READ_BYTES = 256 * 1024
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"
# what JSON must escape, and what some clients take for the end of a line though JSON need not
_CONTROLS = bytes(set(range(0x20)) - {0x0A})
_UNICODE_LINE_ENDS = (b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xa9")


@dataclass(slots=True)
class Events:
    """Takes the bytes of a stream as they come, and gives back what of them may pass.

    Events that are plain JSON on one line pass byte for byte, at the cost of a few searches a
    read and a microsecond an event. Anything else that a stream may hold (other line ends, several
    lines, comments, signs that JSON must escape) is read as the standard says, and written anew
    where it has to be. An event passes when it is complete; nothing passes after the end mark.

    Parameters
    ----------
    expert_id : for errors.
    ended : whether the end mark has come.
    """

    expert_id: str
    ended: bool = False
    _parts: list[bytes] = field(default_factory=list)
    _n_held: int = 0
    _begun: bool = False
    _loose: bool = False
    _data: list[bytes] = field(default_factory=list)
    _n_data: int = 0

    def feed(self, piece: bytes) -> bytes:
        """What may pass now that these bytes have come; empty as long as no event is complete.

        Linear in what was fed, however it is cut.

        Raises
        ------
        ExpertUntrustedError
            An event is too long, is no JSON object, or says that the expert failed.
        """
        if self.ended or not piece:
            return b""
        if not (self._parts or self._loose) and is_plain(piece):
            self._begun = True
            return piece
        self._hold(piece)
        if not self._may_end_in(piece):
            return b""
        text = b"".join(self._parts)
        if not self._begun:
            if _BOM.startswith(text[:3]) and len(text) < len(_BOM):
                return b""
            text, self._begun = text.removeprefix(_BOM), True
        if self._loose or b"\r" in text:
            self._loose = True
            return self._read(text)
        return self._aligned(text)

    def end(self) -> bytes:
        """What may pass now that no more comes: the mark, where only its line end was missing."""
        if self.ended:
            return b""
        try:
            passed = self.feed(b"\n\n")
        except ExpertUntrustedError:
            return b""  # half an event
        return passed if self.ended else b""

    def _may_end_in(self, piece: bytes) -> bool:
        """Whether an event may end in the piece that came last, or lines end in another way."""
        if self._loose:
            return b"\n" in piece or b"\r" in piece
        seam = self._parts[-2][-1:] + piece[:1] if len(self._parts) > 1 else b""
        return b"\n\n" in piece or b"\r" in piece or seam == b"\n\n"

    def _aligned(self, text: bytes) -> bytes:
        """As `feed`, of text without carriage returns."""
        cut = text.rfind(b"\n\n") + 2
        if cut == 1:
            self._keep(text)
            return b""
        self._keep(text[cut:])
        text = text[:cut]
        if is_plain(text):
            return text
        head = text.removesuffix(DONE)
        if head != text and (not head or is_plain(head)):
            self.ended = True
            self._keep(b"")
            return text
        passed = self._lines(text.split(b"\n")[:-1])
        if self.ended:
            self._keep(b"")
        return passed

    def _read(self, text: bytes) -> bytes:
        """As `feed`, of text with any line ends."""
        held = b"\r" if text.endswith(b"\r") else b""  # a line feed may follow
        *lines, rest = _LINE_END.split(text.removesuffix(held))
        self._keep(rest + held)
        return self._lines(lines)

    def _lines(self, lines: list[bytes]) -> bytes:
        """What may pass of these lines, which are complete."""
        passed = []
        for line in lines:
            if self.ended:
                break
            if not line:
                passed.append(self._event())
            elif line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
                self._n_data += len(line)
        return b"".join(passed)

    def _event(self) -> bytes:
        """The event whose lines were read, on one line; empty if it says nothing."""
        data, self._data, self._n_data = b"\n".join(self._data).strip(), [], 0
        if not data:
            return b""
        if data == b"[DONE]":
            self.ended = True
            return DONE
        document, sound = _object(data)
        if document is None:
            raise ExpertUntrustedError(self.expert_id, "sent an event that is no JSON object")
        if document.get("error"):
            raise ExpertUntrustedError(self.expert_id, "failed, and said so in its answer")
        if sound and b"\n" not in data and not _must_be_rewritten(data):
            return b"data: " + data + b"\n\n"
        return b"data: " + json.dumps(document).encode() + b"\n\n"

    def _hold(self, piece: bytes) -> None:
        self._parts.append(piece)
        self._n_held += len(piece)
        # what is read at once may be several events
        if self._n_held > LINE_BYTES + _READ_BYTES or self._n_data > LINE_BYTES:
            raise self._too_long()

    def _keep(self, rest: bytes) -> None:
        self._parts = [rest] if rest else []
        self._n_held = len(rest)
        if self._n_held > LINE_BYTES:
            raise self._too_long()

    def _too_long(self) -> ExpertUntrustedError:
        return ExpertUntrustedError(self.expert_id, f"sent more than {LINE_BYTES} bytes in a line")


def is_plain(text: bytes) -> bool:
    """Whether text is complete events of one line of JSON each that any client reads alike."""
    return (
        text.startswith(b"data: {")
        and text.endswith(b"}\n\n")
        # every line feed ends an event, and every event begins as the first one does
        and text.count(b"}\n\ndata: {") * 2 + 2 == text.count(b"\n")
        and not _must_be_rewritten(text)
        # errors in the guise of events are looked at more closely
        and b'"error"' not in text
        and _are_sound(text[6:-2].split(b"\n\ndata: "))
    )


def _are_sound(documents: list[bytes]) -> bool:
    """Whether each is JSON, with all of its numbers."""
    try:
        for document in documents:
            orjson.loads(document)
    except ValueError:
        return False
    return True


def _must_be_rewritten(text: bytes) -> bool:
    """Whether text holds what must not stand in an event, or may be taken for the end of a line."""
    if len(text.translate(None, _CONTROLS)) != len(text):
        return True
    return not text.isascii() and any(end in text for end in _UNICODE_LINE_ENDS)


def _object(text: bytes) -> tuple[dict[str, Any] | None, bool]:
    """The JSON object that ``text`` holds, if it holds one, and whether all its numbers are some.

    Those that are none are ``None``.
    """
    odd: list[str] = []

    def finite(number: str) -> float | None:
        if not math.isfinite(found := float(number)):
            odd.append(number)
            return None
        return found

    try:
        document = json.loads(text, strict=False, parse_constant=odd.append, parse_float=finite)
    except (ValueError, RecursionError):
        return None, False
    return document if isinstance(document, dict) else None, not odd
