"""Both mypy and pyright accept the verdicts an event allows, and reject the others."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).parent / "cases"
ROOT = CASES.parent.parent.parent


def refused(case: Path) -> set[int]:
    lines = case.read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# refuse")}


def run(*command: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    ).stdout


def mypy(case: Path) -> set[int]:
    said = run("mypy", "--strict", "--no-error-summary", str(case))
    return {int(found) for found in re.findall(rf"{case.name}:(\d+): error", said)}


def pyright(case: Path) -> set[int]:
    said = json.loads(run("pyright", "--outputjson", "--pythonpath", sys.executable, str(case)))
    return {
        found["range"]["start"]["line"] + 1
        for found in said["generalDiagnostics"]
        if found["severity"] == "error"
    }


@pytest.mark.timeout(120)
@pytest.mark.parametrize("checker", [mypy, pyright])
@pytest.mark.parametrize("case", sorted(CASES.glob("*.py")), ids=lambda case: case.stem)
def test_exactly_the_marked_lines_are_rejected(checker: object, case: Path) -> None:
    assert callable(checker)
    expected = refused(case)
    assert len(expected) >= 5
    assert checker(case) == expected
