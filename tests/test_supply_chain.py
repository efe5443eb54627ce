"""What gets installed: under a lock with hashes, from nowhere in particular, without surprises."""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))

# Code in a .pth file runs at every start of Python, imported or not.
EXPECTED_PTH = {
    "_byzerllm.pth",  # our own, of an editable installation: one path
    "_virtualenv.pth",  # from virtualenv
    "distutils-precedence.pth",  # from setuptools, which older Pythons put into every environment
}


def requirements(lock: Path) -> list[str]:
    """The entries of a lock: a requirement and its hashes each, comments left out."""
    lines = [line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#")]
    return [" ".join(entry.split()) for entry in "\n".join(lines).replace("\\\n", "").splitlines()]


def name_of(requirement: str) -> str:
    """The package's name as it stands in a lock, without extras, versions and markers."""
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_line_of_a_lock_is_one_version_with_hashes(lock: Path) -> None:
    entries = requirements(lock)

    assert entries
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==[\w.!+]+( ; [^#@]+?)?( --hash=sha256:[0-9a-f]{64})+", entry)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_names_no_place(lock: Path) -> None:
    assert (
        re.findall(r"://|--index|--extra-index|--find-links|--trusted|/\w+/", lock.read_text())
        == []
    )


def test_the_lock_covers_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["local"],
        *project["dependency-groups"]["dev"],
    ]

    locked = {name_of(entry) for entry in requirements(ROOT / "requirements" / "dev.txt")}

    assert {name_of(requirement) for requirement in asked} - locked == set()


def test_the_environment_holds_no_unexpected_pth_file() -> None:
    found = {file.name for file in Path(sysconfig.get_path("purelib")).glob("*.pth")}

    assert found - EXPECTED_PTH == set()
