"""Files that are watched: whatever fails, they are looked at again."""

import asyncio
from pathlib import Path

import pytest

from coe.services.live import files
from coe.services.live.files import look, watched


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(files, "LOOK_EVERY_S", 0.0)


@pytest.mark.parametrize("failing", ["paths", "read"])
async def test_files_are_watched_on_after_what_nobody_foresaw(tmp_path, at_once, failing):
    path, done, asked = tmp_path / "a", [], asyncio.Event()

    def step(name):
        done.append(name)
        if name == failing and done.count(name) == 1:
            raise ZeroDivisionError

    def paths():
        step("paths")
        return [path]

    async def read():
        step("read")

    watching = asyncio.create_task(watched(paths, asked, read))
    async with asyncio.timeout(10.0):
        for n in (1, 2):
            path.write_text("." * n)
            while done.count("read") < n:  # noqa: ASYNC110
                await asyncio.sleep(0)
    assert not watching.done()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


def test_a_folder_that_is_replaced_while_it_is_looked_at_holds_nothing(tmp_path, monkeypatch):
    (tmp_path / "inner").write_text("1")

    def gone(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "iterdir", gone)
    assert look([tmp_path]).keys() == {tmp_path}
