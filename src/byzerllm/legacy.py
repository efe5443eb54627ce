"""Small helpers that programs written for earlier releases import from ``byzerllm.utils``."""

from __future__ import annotations

import functools
import hashlib
import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def print_flush(*values: object, **options: Any) -> None:
    """Print and flush at once, so that a line shows even when the output is piped."""
    print(*values, **{**options, "flush": True})  # noqa: T201 - printing is what it is for


def timeit(func: Callable[P, T]) -> Callable[P, T]:
    """Print how long each call of the function took."""

    @functools.wraps(func)
    def timed(*args: P.args, **kwargs: P.kwargs) -> T:
        start = time.perf_counter()
        try:
            return func(*args, **kwargs)
        finally:
            took = time.perf_counter() - start
            print_flush(f"{getattr(func, '__qualname__', func)} took {took:.3f} s")

    return timed


def load_json_str(json_str: str) -> Any:
    """Decode JSON text."""
    return json.loads(json_str)


def generate_str_md5(s: str) -> str:
    """The MD5 of a text in hexadecimal: a name for it, not a protection."""
    return hashlib.md5(s.encode("utf-8"), usedforsecurity=False).hexdigest()


def generate_file_md5(file_path: str | Path) -> str:
    """The MD5 of a file in hexadecimal: a name for it, not a protection."""
    digest = hashlib.md5(usedforsecurity=False)
    with Path(file_path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def random_uuid() -> str:
    """A fresh random id of 32 hexadecimal digits."""
    return uuid.uuid4().hex
