"""What a process holds, for tests that look whether it comes back; and the scripted provider."""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from wire_server import wire  # noqa: F401  # a fixture

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Footprint:
    """What this process holds now."""

    fds: int
    threads: int
    children: int
    folders: int
    """Temporary ones."""

    @classmethod
    def now(cls, folder: Path) -> Footprint:
        gc.collect()
        return cls(
            len(os.listdir("/proc/self/fd")),  # noqa: PTH208  # it is gone when Path looks
            len(os.listdir("/proc/self/task")),  # noqa: PTH208
            len(children()),
            len(list(folder.iterdir())),
        )

    def within(self, other: Footprint) -> bool:
        return all(getattr(self, name) <= getattr(other, name) for name in self.__annotations__)


def children() -> list[int]:
    """The process ids of this process's children, those that ended and were not waited for too."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(")")[2].split()[1]
        except OSError:  # it has just ended
            continue
        if int(parent) == os.getpid():
            found.append(int(stat.parent.name))
    return found


@pytest.fixture(name="children")
def _children() -> Callable[[], list[int]]:
    return children


@pytest.fixture
def footprint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Footprint]]:
    """Return a function that gives the footprint now, or waits until it is within a given one."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)

        def now(limit: Footprint | None = None, *, seconds: float = 10) -> Footprint:
            deadline = time.monotonic() + seconds
            found = Footprint.now(Path(folder))
            while limit and not found.within(limit) and time.monotonic() < deadline:
                time.sleep(0.1)
                found = Footprint.now(Path(folder))
            if limit:
                assert found.within(limit), f"{found} after {limit}: {open_files()}"
            return found

        yield now
        monkeypatch.undo()


def open_files() -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except OSError:
            continue
    return sorted(found)


def resident() -> float:
    """Megabytes of memory that this process occupies."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


@pytest.fixture(name="resident")
def _resident() -> Callable[[], float]:
    return resident
