"""``byzerllm query``: one question, its answer, an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Open, Run

QUESTION = "Name the capital of Germany."
ASK = ("query", "--temperature", "0")


def test_the_bundled_model_answers(cli: Run, stocked: Path) -> None:
    done = cli(*ASK, "--model", "smollm2", "--query", QUESTION)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "The capital of Germany is Berlin.\n"
    assert done.stderr == ""


def test_a_path_is_deployed_under_the_name_given(cli: Run, smollm2: Path) -> None:
    done = cli(
        *(*ASK, "--model", "mine", "--model_path", str(smollm2), "--query", "-"), says=QUESTION
    )

    assert done.stdout == "The capital of Germany is Berlin.\n", done.stderr


def test_a_text_format_model_is_asked_through_its_own_template(cli: Run, smollm2: Path) -> None:
    done = cli(
        *(*ASK, "--model", "mine", "--model_path", str(smollm2), "--query", QUESTION),
        *("--infer_params", "backend.message_format=false"),
    )

    assert done.stdout == "The capital of Germany is Berlin.\n", done.stderr


def test_an_unknown_template_is_a_clear_error(cli: Run, stocked: Path) -> None:
    done = cli(*ASK, "--model", "smollm2", "--query", QUESTION, "--template", "nix")

    assert done.returncode == 1
    assert "nix" in done.stderr


def test_the_answer_goes_to_the_file(cli: Run, stocked: Path, tmp_path: Path) -> None:
    file = tmp_path / "answer.txt"
    file.write_text("old")

    done = cli(*ASK, "--model", "smollm2", "--query", QUESTION, "--output-file", str(file))

    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert file.read_text() == "The capital of Germany is Berlin.\n"


def test_at_a_terminal_it_says_how_fast_it_was(terminal: Open, stocked: Path) -> None:
    screen = terminal(*ASK, "--model", "smollm2", "--query", QUESTION)

    screen.expect("The capital of Germany is Berlin.")
    screen.expect("tokens/s")
    assert screen.leave() == 0
