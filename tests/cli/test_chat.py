"""``byzerllm chat`` from a pipe: a line is a message, and nothing but answers comes out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from byzerllm.cli.session import read_saved
from byzerllm.errors import ConfigError

if TYPE_CHECKING:
    from tests.cli.conftest import Run

ZERO = ("--temperature", "0")


def test_each_line_is_a_message_and_only_answers_come_out(cli: Run, stocked: Path) -> None:
    done = cli("chat", *ZERO, says="Name the capital of Germany.\n\nWhat is 2+2?\n")

    assert done.returncode == 0, done.stderr
    first, *more = done.stdout.splitlines()
    assert first == "The capital of Germany is Berlin."
    assert more
    assert done.stderr == ""


def test_a_slash_from_a_pipe_is_no_command(cli: Run, stocked: Path) -> None:
    done = cli("chat", *ZERO, "--max_length", "4", says="/exit\n")

    assert done.returncode == 0
    assert done.stdout.strip()


def test_the_model_may_be_a_path_with_settings(cli: Run, smollm2: Path) -> None:
    done = cli(
        *("chat", "--model-path", str(smollm2), *ZERO),
        *("--infer-params", "backend.n_ctx=2048", "backend.n_parallel=1"),
        says="Name the capital of Germany.\n",
    )

    assert done.stdout == "The capital of Germany is Berlin.\n", done.stderr


def test_an_unknown_setting_is_a_clear_error(cli: Run, smollm2: Path) -> None:
    done = cli("chat", str(smollm2), "--infer_params", "backend.n_cxt=1", says="hi\n")

    assert done.returncode == 1
    assert "'backend.n_cxt'" in done.stderr
    assert "n_ctx" in done.stderr


def test_a_file_that_is_no_model_is_a_clear_error(cli: Run, home: Path) -> None:
    file = home / "fake.gguf"
    file.write_bytes(b"no model" * 100)

    done = cli("chat", str(file), says="hi\n")

    assert done.returncode == 1
    assert str(file) in done.stderr
    assert done.stderr.count("\n") == 1


def test_max_length_is_held(cli: Run, stocked: Path) -> None:
    done = cli("chat", *ZERO, "--max_length", "2", says="Name the capital of Germany.\n")

    assert done.stdout == "The capital\n"


def test_input_that_is_no_text_is_a_clear_error(stocked: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "byzerllm", "chat", "--human"],
        input=b"\xff\xfe\n",
        capture_output=True,
        timeout=50,
    )

    assert done.returncode == 1
    assert done.stderr.startswith(b"error: The input is not UTF-8 text")


def test_ctrl_c_while_an_answer_comes_leaves_quietly(stocked: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "byzerllm", "chat", *ZERO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert program.stdin and program.stdout and program.stderr
    program.stdin.write(b"Tell me a long story about a dragon.\n")
    program.stdin.flush()
    program.stdout.read(20)

    os.kill(program.pid, signal.SIGINT)
    _, complaint = program.communicate(timeout=20)

    assert program.returncode == 130
    assert complaint.strip() == b""


# -- a person as the model ------------------------------------------------------------------------


def test_human_asks_for_each_answer_without_any_model(cli: Run) -> None:
    done = cli(
        "chat", "--human", "--system", "Be brief.", says="Hello?\nI am here.\nBye\nSo long.\n"
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("answer: ") == 2
    assert "system: Be brief." in done.stdout
    assert done.stdout.endswith("answer: So long.\n")
    assert "  assistant: I am here." in done.stdout


def test_human_without_an_answer_is_a_clear_error(cli: Run) -> None:
    done = cli("chat", "--human", says="Hello?\n")

    assert done.returncode == 1
    assert done.stderr.startswith("error: A person was to answer")
    assert "the input has ended" in done.stderr
    assert done.stderr.count("\n") == 1


def test_intercept_takes_the_next_line_as_the_answer(cli: Run, stocked: Path) -> None:
    done = cli("chat", "--intercept", says="Name the capital of Germany.\nIt is Bonn.\n")

    assert done.returncode == 0, done.stderr
    assert "user: Name the capital of Germany." in done.stdout
    assert done.stdout.endswith("answer: It is Bonn.\n")


def test_intercept_at_the_end_of_input_is_a_clear_error(cli: Run, stocked: Path) -> None:
    done = cli("chat", "--intercept", says="Name the capital of Germany.\n")

    assert done.returncode == 1
    assert "the input has ended" in done.stderr


# -- saved conversations --------------------------------------------------------------------------


def test_a_saved_conversation_is_read_with_its_system_message(tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    file.write_text(json.dumps([{"role": "system", "content": "s"}, *said]))

    assert read_saved(file) == ("s", said)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"role": "king", "content": ""}]', "\xff"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "talk.json"
    file.write_text(text, "latin-1")

    with pytest.raises(ConfigError):
        read_saved(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_saved(tmp_path / "none.json")
