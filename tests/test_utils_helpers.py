"""The small helpers: code that is run and listened to, parameters, digests, ids."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byzerllm.capture import exec_capture_output
from byzerllm.errors import ConfigError
from byzerllm.legacy import (
    generate_file_md5,
    generate_str_md5,
    load_json_str,
    print_flush,
    random_uuid,
    timeit,
)
from byzerllm.params import parse_params

# -- exec_capture_output ------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def streams_are_restored() -> Iterator[None]:
    before = (sys.stdout, sys.stderr)
    yield
    assert (sys.stdout, sys.stderr) == before


def test_output_and_requested_variables_come_back() -> None:
    code = "x = 6 * 7\nprint(x)\ndef f(): return x\n"

    status, output, variables = exec_capture_output(code, {"x": True, "f": True, "absent": True})

    assert (status, output) == (0, "42\n")
    assert set(variables) == {"x", "f"}
    assert variables["x"] == 42
    assert variables["f"]() == 42


def test_nothing_is_returned_that_was_not_asked_for() -> None:
    assert exec_capture_output("x = 1") == (0, "", {})
    assert exec_capture_output("x = 1", {}) == (0, "", {})


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("print('seen'); 1 / 0", ["ZeroDivisionError"]),
        ("def f(:", ["SyntaxError"]),
        ("import sys; sys.exit(3)", ["SystemExit: 3"]),
        ("raise KeyError('k')", ["KeyError: 'k'"]),
        ("\0", []),
    ],
)
def test_a_failure_comes_back_as_a_traceback(code: str, names: list[str]) -> None:
    status, output, variables = exec_capture_output(code, {"x": True})

    assert (status, variables) == (1, {})
    assert "Error" in output or "Exit" in output
    assert all(name in output for name in names)
    assert "capture.py" not in output or code == "\0"


def test_ctrl_c_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt):
        exec_capture_output("raise KeyboardInterrupt")


def test_both_streams_are_caught_in_the_order_they_were_written() -> None:
    code = "import sys\nprint('a')\nprint('b', file=sys.stderr)\nsys.stdout.write('c')"

    assert exec_capture_output(code)[1] == "a\nb\nc"


def helper() -> None:
    print("from afar")


def test_what_called_code_prints_is_caught_too(capsys: pytest.CaptureFixture[str]) -> None:
    code = f"""
import asyncio, importlib.util, logging, sys
sys.modules[{__name__!r}].helper()
async def task():
    print("from a task")
asyncio.run(task())
asyncio.run(asyncio.to_thread(print, "from its thread"))
handler = logging.StreamHandler(sys.stderr)
handler.handle(logging.makeLogRecord({{"msg": "from a log"}}))
"""

    status, output, _ = exec_capture_output(code)

    assert output == "from afar\nfrom a task\nfrom its thread\nfrom a log\n"
    assert status == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("import sys; sys.stdout.buffer.write('é'.encode())", "é"),
        ("import sys; sys.stdout.reconfigure(encoding='utf-8'); print('中')", "中\n"),
        ("print('\\ud800')", "\\ud800\n"),
        ("print('a\\r\\nb')", "a\r\nb\n"),
        ("import sys; print('a'); sys.stdout.close()", "a\n"),
        ("import sys; print(sys.stdout.isatty(), sys.stdout.writable())", "False True\n"),
        ("import sys, io; print('a'); sys.stdout = io.StringIO(); print('b')", "a\n"),
        ("import sys; sys.stdout = None; sys.stderr = None", ""),
    ],
)
def test_the_streams_the_code_sees_behave_like_streams(code: str, output: str) -> None:
    assert exec_capture_output(code) == (0, output, {})


@pytest.mark.parametrize("failing", ["1/0", "import sys; sys.stdout = None; 1/0", "def f(:"])
def test_the_streams_are_back_after_a_failure(
    failing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exec_capture_output(failing)[0] == 1

    print("heard")
    assert capsys.readouterr().out == "heard\n"


def test_a_stream_kept_by_the_code_still_writes_somewhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = exec_capture_output("import sys; out = sys.stdout", {"out": True})[2]["out"]

    print("later", file=kept)

    assert capsys.readouterr().out == "later\n"


def test_runs_can_be_nested() -> None:
    inner = "from byzerllm.capture import exec_capture_output as run\n"

    status, output, found = exec_capture_output(
        f"{inner}print('a')\ninner = run('print(1)')\nprint('b')", {"inner": True}
    )

    assert (status, output) == (0, "a\nb\n")
    assert found["inner"] == (0, "1\n", {})


def test_threads_do_not_hear_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    stop = threading.Event()
    spoken = []

    def bystander() -> None:
        while not stop.is_set():
            print("bystander")
            spoken.append(1)

    def run(number: int) -> tuple[int, str, dict[str, Any]]:
        return exec_capture_output(f"for _ in range(200): print({number})\nx = {number}", {"x": 1})

    thread = threading.Thread(target=bystander)
    thread.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(run, range(40)))
    finally:
        stop.set()
        thread.join()

    assert results == [(0, f"{number}\n" * 200, {"x": number}) for number in range(40)]
    assert capsys.readouterr().out == "bystander\n" * len(spoken)


def test_a_program_without_a_console_can_run_code_too() -> None:
    code = (
        "import sys; out = sys.stdout; sys.stdout = sys.stderr = None\n"
        "from byzerllm.capture import exec_capture_output as run\n"
        "out.write(repr((run('print(1)'), sys.stdout)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)

    assert done.stdout == "((0, '1\\n', {}), None)", done.stderr


def test_a_redirection_around_the_call_is_kept() -> None:
    with contextlib.redirect_stdout(io.StringIO()) as heard:
        assert exec_capture_output("print(1)")[1] == "1\n"
        print("outside")

    assert heard.getvalue() == "outside\n"


def test_the_callers_variables_are_out_of_reach() -> None:
    assert exec_capture_output("exec_capture_output")[0] == 1
    assert exec_capture_output("sys")[0] == 1


def test_future_imports_of_the_module_do_not_leak_into_the_code() -> None:
    code = "def f(x: int): ...\nkind = type(f.__annotations__['x']).__name__"

    assert exec_capture_output(code, {"kind": True})[2] == {"kind": "type"}


def test_a_class_with_fields_can_be_defined() -> None:
    code = (
        "from dataclasses import dataclass\nfrom pydantic import BaseModel\n"
        "@dataclass\nclass D:\n  x: 'int' = 1\n"
        "class M(BaseModel):\n  d: D\n"
        "dumped = M(d=D()).model_dump()"
    )

    assert exec_capture_output(code, {"dumped": True}) == (0, "", {"dumped": {"d": {"x": 1}}})


def test_logging_set_up_during_a_run_works_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("test.capture")
    code = "import logging\nlogging.getLogger('test.capture').addHandler(logging.StreamHandler())"
    try:
        assert exec_capture_output(code)[0] == 0
        logger.warning("later")
    finally:
        logger.handlers.clear()

    assert capsys.readouterr().err == "later\n"


# -- parse_params -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "name", "decoded"),
    [
        ("sft.int.epochs", "3", "epochs", 3),
        ("sft.float.learning_rate", "5e-5", "learning_rate", 5e-5),
        ("sft.bool.fp16", "true", "fp16", True),
        ("sft.bool.fp16", "false", "fp16", False),
        ("sft.bool.fp16", "True", "fp16", True),
        ("sft.bool.fp16", True, "fp16", True),
        ("sft.str.dtype", "bfloat16", "dtype", "bfloat16"),
        ("sft.str.dtype", "", "dtype", ""),
        ("sft.list.modules", '["q", "v"]', "modules", ["q", "v"]),
        ("sft.list.modules", ["q"], "modules", ["q"]),
        ("sft.dict.extra", '{"a": {"b": 1}}', "extra", {"a": {"b": 1}}),
        ("sft.int.epochs", 3, "epochs", 3),
        ("sft.str.a.b", "x", "a.b", "x"),
    ],
)
def test_a_parameter_is_decoded_by_the_type_in_its_name(
    key: str, value: Any, name: str, decoded: Any
) -> None:
    found = parse_params({key: value}, "sft")

    assert found == {name: decoded}
    assert type(found[name]) is type(decoded)


def test_parameters_of_other_prefixes_are_left_out() -> None:
    params = {"sft.int.a": "1", "sfft.int.b": "2", "name": "x", "sft": "y", "sftx.int.c": "3"}

    assert parse_params(params, "sft") == {"a": 1}
    assert parse_params(params, "sfft") == {"b": 2}
    assert len(params) == 5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sft.int.epochs", "three"),
        ("sft.int.epochs", None),
        ("sft.bool.fp16", "yes"),
        ("sft.list.modules", "{}"),
        ("sft.dict.extra", "[1]"),
        ("sft.dict.extra", "{"),
        ("sft.complex.x", "1"),
        ("sft.int", "1"),
        ("sft.int.", "1"),
        ("sft.", "1"),
    ],
)
def test_a_wrong_parameter_is_named(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_params({key: value}, "sft")

    assert key in str(raised.value)


# -- the rest -----------------------------------------------------------------------------------


def test_digests_are_md5_in_hexadecimal(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(b"x" * 3_000_000)

    assert generate_str_md5("") == "d41d8cd98f00b204e9800998ecf8427e"
    assert generate_str_md5("中文") == hashlib.md5("中文".encode()).hexdigest()
    assert generate_file_md5(path) == hashlib.md5(path.read_bytes()).hexdigest()
    assert generate_file_md5(str(path)) == generate_file_md5(path)


def test_ids_are_32_hexadecimal_digits_and_differ() -> None:
    ids = {random_uuid() for _ in range(100)}

    assert len(ids) == 100
    assert all(len(one) == 32 and set(one) <= set("0123456789abcdef") for one in ids)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_json_text_is_decoded(value: Any) -> None:
    import json

    assert load_json_str(json.dumps(value)) == value


def test_print_flush_flushes() -> None:
    class Stream(io.StringIO):
        flushed = 0

        def flush(self) -> None:
            self.flushed += 1

    stream = Stream()
    print_flush("a", 1, sep="-", end="!", file=stream, flush=False)

    assert stream.getvalue() == "a-1!"
    assert stream.flushed == 1


def test_timeit_keeps_the_function_and_prints_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    @timeit
    def add(a: int, b: int = 1) -> int:
        """Add."""
        return a + b

    assert add(1, b=2) == 3
    assert (add.__name__, add.__doc__) == ("add", "Add.")
    assert "add took 0.0" in capsys.readouterr().out
