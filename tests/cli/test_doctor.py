"""``byzerllm doctor`` tells the truth about the machine."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Open, Run


def line_of(output: str, what: str) -> str:
    return next(line for line in output.splitlines() if line[9:].startswith(what))


def test_a_machine_with_all_that_is_needed_is_fine(cli: Run, stocked: Path) -> None:
    done = cli("doctor")

    assert done.returncode == 0, done.stdout
    assert platform.python_version() in line_of(done.stdout, "Python")
    for what in ("llama.cpp", "hosted models", "model cache", "smollm2", "pip", "cores"):
        assert line_of(done.stdout, what).startswith("ok ")


def test_a_missing_model_is_a_note_with_the_command(cli: Run) -> None:
    done = cli("doctor")

    assert done.returncode == 0
    assert line_of(done.stdout, "smollm2").startswith("note ")
    assert "→ byzerllm models pull smollm2\n" in done.stdout


def test_a_damaged_model_is_a_problem_with_the_command(cli: Run, home: Path) -> None:
    file = home / "models" / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"half of it")

    done = cli("doctor")

    assert done.returncode == 1
    assert line_of(done.stdout, "smollm2").startswith("problem ")
    assert "→ byzerllm models remove smollm2 && byzerllm models pull smollm2\n" in done.stdout


def test_a_cache_that_cannot_be_written_is_a_problem(
    cli: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").touch()
    monkeypatch.setenv("BYZERLLM_HOME", str(home / "file"))

    done = cli("doctor")

    assert done.returncode == 1
    assert line_of(done.stdout, "model cache").startswith("problem ")
    assert "BYZERLLM_HOME=" in done.stdout


def test_secrets_in_the_environment_are_masked(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-123")
    monkeypatch.setenv("BYZERLLM_API_KEY", "bz-123")
    monkeypatch.setenv("https_proxy", "http://me:pw-123@proxy.invalid:1/")

    done = cli("doctor")

    assert "-123" not in done.stdout
    assert "OPENAI_API_KEY=***" in done.stdout
    assert "BYZERLLM_API_KEY=***" in done.stdout
    assert "https_proxy=http://***@proxy.invalid:1/" in done.stdout


def test_it_knows_whether_a_person_can_be_asked(cli: Run, terminal: Open) -> None:
    assert line_of(cli("doctor").stdout, "terminal").startswith("note ")

    screen = terminal("doctor")

    screen.expect("a person can be asked here")
    assert screen.leave() == 0
