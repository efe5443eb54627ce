"""The program around the commands: help, version, flags, errors, exit codes."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from byzerllm.cli.app import COMMANDS
from byzerllm.cli.command import spread
from byzerllm.cli.screen import error_line

if TYPE_CHECKING:
    from tests.cli.conftest import Run


def test_help_lists_every_command_and_is_quick(cli: Run) -> None:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = cli("--help")
        seconds.append(time.perf_counter() - started)

    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert min(seconds) < 0.3


@pytest.mark.parametrize("args", [["--help"], ["chat", "--help"], ["query", "--help"]])
def test_help_loads_nothing_heavy(args: list[str]) -> None:
    code = (
        "import sys; from byzerllm.cli.app import run; assert run(sys.argv[1:]) == 0; "
        "heavy = {'aiohttp', 'rich', 'pydantic', 'jinja2', 'asyncio'}; "
        "print(sorted(heavy.intersection(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=30
    )

    assert done.stdout.splitlines()[-1] == "[]"


def test_without_a_command_the_help_is_shown(cli: Run) -> None:
    assert cli().stdout == cli("--help").stdout


def test_the_version_is_that_of_the_package(cli: Run) -> None:
    assert cli("--version").stdout == f"byzerllm {version('byzerllm')}\n"


def test_the_installed_program_and_the_module_are_the_same(cli: Run) -> None:
    program = str(Path(sys.executable).with_name("byzerllm"))

    assert cli("--version", program=[program]).stdout == cli("--version").stdout


@pytest.mark.parametrize(
    ("args", "where"),
    [
        (["talk"], "byzerllm --help"),
        (["chat", "--loud"], "byzerllm chat --help"),
        (["chat", "--human", "--intercept", "smollm2"], "byzerllm chat --help"),
        (["query", "--query", "hi"], "byzerllm query --help"),
        (["query", "--model", "smollm2", "--query", " "], "byzerllm query --help"),
        (["query", "--model", "m", "--query", "q", "--output_file", "/no/where"], "query --help"),
        (["chat", "--temperature", "-1"], "byzerllm chat --help"),
        (["chat", "--infer_params", "n_ctx"], "byzerllm chat --help"),
        (["models", "fetch"], "byzerllm models --help"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_help(cli: Run, args: list[str], where: str) -> None:
    done = cli(*args)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(f"{where}\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["chat"], "Run: byzerllm models pull smollm2"),
        (["chat", "gpt-9"], "byzerllm models"),
        (["chat", "/no/such.gguf"], "does not exist"),
        (["chat", "--model_path", "/no/such.gguf"], "does not exist"),
        (["chat", "--model-path", "/no/such.gguf"], "does not exist"),
        (["chat", "smollm2", "--model_path", "/no/such.gguf"], "leave one of them out"),
        (["chat", "--infer_params", "saas.model=x"], "--pretrained_model_type saas/openai"),
        (["chat", "--pretrained-model-type", "saas/openai"], "OPENAI_API_KEY"),
        (["chat", "--pretrained_model_type", "saas/nobody"], "nobody"),
        (["query", "--model", "nix", "--query", "q"], "--model_path"),
        (["models", "pull", "gpt-9"], "smollm2"),
    ],
)
def test_an_error_is_one_line_with_the_next_step(cli: Run, args: list[str], hint: str) -> None:
    done = cli(*args)

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert hint in done.stderr
    assert done.stderr.count("\n") == 1


def test_debug_shows_where_an_error_comes_from(cli: Run) -> None:
    for args in (["chat", "gpt-9", "--debug"], ["--debug", "chat", "gpt-9"]):
        done = cli(*args)

        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert "ConfigError" in done.stderr


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("a\n  b", "error: a b"),
        ("got saas.api_key=sk-1 there", "error: got saas.api_key=*** there"),
        ("unknown 'saas.api_key=sk-1'.", "error: unknown 'saas.api_key=***'."),
        ("backend.n_ctx=4096 is fine", "error: backend.n_ctx=4096 is fine"),
        ("red \x1b[31malert", "error: red �[31malert"),
    ],
)
def test_an_error_line_is_one_line_without_secrets(message: str, line: str) -> None:
    assert error_line(message) == line


def test_a_secret_in_the_wrong_place_is_not_repeated(cli: Run) -> None:
    for args in (
        ["chat", "saas.api_key=sk-123"],
        ["chat", "smollm2", "saas.api_key=sk-123"],
        ["chat", "--infer_params", "sk-123"],
        ["chat", "--model_path", "saas.api_key=sk-123"],
    ):
        done = cli(*args)

        assert done.returncode != 0
        assert "sk-123" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("args", "spread_out"),
    [
        (["--infer_params", "a=1", "b=2"], ["--infer_params", "a=1", "--infer_params", "b=2"]),
        (
            ["--infer-params", "a=1", "b.c-d=2"],
            ["--infer-params", "a=1", "--infer-params", "b.c-d=2"],
        ),
        (["--infer_params=a=1", "b=2"], ["--infer_params=a=1", "--infer_params", "b=2"]),
        (["--infer_params", "a=1", "--yes", "b=2"], ["--infer_params", "a=1", "--yes", "b=2"]),
        (["--infer_params", "a=1", "m.gguf"], ["--infer_params", "a=1", "m.gguf"]),
        (["--infer_params", "a=1", "--", "b=2"], ["--infer_params", "a=1", "--", "b=2"]),
        (["--infer_params"], ["--infer_params"]),
        (["b=2"], ["b=2"]),
    ],
)
def test_infer_params_takes_several_values(args: list[str], spread_out: list[str]) -> None:
    assert spread(args) == spread_out
