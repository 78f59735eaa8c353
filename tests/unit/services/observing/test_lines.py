"""A log that is blocked, full or gone stops nobody."""

import os
import threading
import time

import pytest

from coe.services.observing.lines import Lines


def missing(n_lines):
    return f"missing {n_lines}"


def until(condition, within_s=5.0):
    ends = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.002)


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        try:
            os.close(fd)
        except OSError:
            pass


def test_lines_come_in_order(pipe):
    reading, writing = pipe
    lines = Lines(writing, missing)
    lines.start()
    for k in range(200):
        lines.put(f"line {k}")
    lines.close()
    assert os.read(reading, 100_000).decode().splitlines() == [f"line {k}" for k in range(200)]
    assert (lines.n_written, lines.n_dropped) == (200, 0)


def test_a_file_has_them_all_in_order(tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as file:
        lines = Lines(file.fileno(), missing)
        for k in range(2000):
            lines.put(f"line {k}" + "." * 300)
        lines.start()
        lines.close(10.0)
    written = path.read_text().splitlines()
    assert written == [f"line {k}" + "." * 300 for k in range(2000)]
    assert (lines.n_written, lines.n_dropped) == (2000, 0)


def test_a_line_is_written_or_dropped_and_never_both(pipe):
    reading, writing = pipe

    def last_words(n_lines):
        os.close(reading)
        return missing(n_lines)

    lines = Lines(writing, last_words, most=1)
    lines.put("kept")
    lines.put("dropped")
    lines.start()
    lines.close(5.0)
    assert (lines.n_written, lines.n_dropped) == (1, 1)


def test_what_was_closed_before_is_counted(pipe):
    _, writing = pipe
    os.close(writing)
    lines = Lines(writing, missing)
    lines.put("lost")
    lines.start()
    until(lambda: lines.n_dropped == 1)
    lines.close()
    assert lines.n_written == 0


def test_two_who_write_into_one_pipe_leave_each_others_lines_whole(pipe):
    reading, writing = pipe
    both, n_lines = [Lines(writing, missing) for _ in range(2)], 1500
    for own, sign in zip(both, "ab", strict=True):
        for _ in range(n_lines):
            own.put(sign * 700)
    got = bytearray()
    reader = threading.Thread(target=lambda: got.extend(drained(reading, 5000)))
    reader.start()
    for own in both:
        own.start()
    for own in both:
        own.close(10.0)
    os.close(writing)
    reader.join()
    lines = got.decode().splitlines()
    assert {*lines} == {"a" * 700, "b" * 700}
    assert [lines.count(sign * 700) for sign in "ab"] == [n_lines, n_lines]


def test_a_reader_who_stopped_holds_nobody_up_and_is_told_what_is_missing(pipe):
    reading, writing = pipe
    lines = Lines(writing, missing, most=50)
    lines.start()
    n_lines, long = 2000, "x" * 1000  # two megabytes; the pipe holds 64 KiB
    began = time.thread_time()
    for _ in range(n_lines):
        lines.put(long)
    assert time.thread_time() - began < 1.0
    assert lines.n_dropped > 1500
    dropped = lines.n_dropped
    got = bytearray()
    reader = threading.Thread(target=lambda: got.extend(drained(reading)))
    reader.start()
    until(lambda: lines.n_written + lines.n_dropped == n_lines)
    lines.put("last")
    lines.close()
    os.close(writing)
    reader.join(5.0)
    found = got.decode().splitlines()
    assert found.count(long) == n_lines - lines.n_dropped
    assert f"missing {dropped}" in found
    assert found[-1] == "last"


def drained(fd, at_once=65536):
    found = b""
    while piece := os.read(fd, at_once):
        found += piece
    return found


def test_a_closed_pipe_is_counted_and_another_may_take_its_place(pipe):
    reading, writing = pipe
    lines = Lines(writing, missing)
    os.close(reading)
    lines.start()
    lines.put("lost")
    until(lambda: lines.n_dropped == 1)
    again, other = os.pipe()
    os.dup2(other, writing)
    os.close(other)
    lines.put("found")
    lines.close()
    assert os.read(again, 1000).decode().splitlines() == ["found", "missing 1"]
    os.close(again)


def test_what_broke_off_in_a_line_is_ended_before_the_next(pipe):
    reading, writing = pipe
    os.set_blocking(writing, False)
    lines = Lines(writing, missing)
    lines.start()
    lines.put("y" * 200_000)
    lines.put("next")
    got = b""
    while not got.endswith(b"next\n"):
        got += os.read(reading, 65536)
    lines.close()
    assert got == b"y" * 200_000 + b"\nnext\n"


def test_closing_does_not_wait_for_ever(pipe):
    _, writing = pipe
    lines = Lines(writing, missing)
    lines.start()
    lines.put("z" * 200_000)
    began = time.monotonic()
    lines.close(within_s=0.1)
    assert time.monotonic() - began < 2.0


def test_a_full_disk_is_counted():
    fd = os.open("/dev/full", os.O_WRONLY)
    lines = Lines(fd, missing)
    lines.start()
    for _ in range(10):
        lines.put("lost")
    lines.close()
    os.close(fd)
    assert (lines.n_written, lines.n_dropped) == (0, 10)


def test_what_fails_as_nobody_foresaw_is_dropped_and_the_next_lines_are_written(pipe, monkeypatch):
    reading, writing = pipe
    lines, whole = Lines(writing, missing), os.write
    monkeypatch.setattr(os, "write", None)
    lines.start()
    lines.put("lost")
    until(lambda: lines.n_dropped == 1)
    monkeypatch.setattr(os, "write", whole)
    lines.put("found")
    lines.close()
    assert os.read(reading, 1000) == b"found\nmissing 1\n"
