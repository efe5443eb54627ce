"""What ``byzerllm doctor`` looks at. A check is a function that yields findings."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

from byzerllm import config, models
from byzerllm.cli.screen import is_terminal, megabytes
from byzerllm.errors import ModelFileError

OK, NOTE, PROBLEM = "ok", "note", "problem"
LEAST_PYTHON = (3, 10)
ROOM = 300_000_000
"""Free bytes that fetching the bundled model takes, with a margin."""
LEAST_MEMORY = 700_000_000
"""Bytes that the bundled model wants with its default context."""

_VARIABLES = [
    "BYZERLLM_HOME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_NO_INDEX",
    "SSL_CERT_FILE",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "NO_COLOR",
]
_OPTIONAL = ["torch", "transformers", "vllm", "deepspeed", "ray", "onnxruntime"]


@dataclass
class Finding:
    """One line: how it is, and what mends it."""

    mark: str
    """``ok``, ``note`` (missing, and not needed) or ``problem``."""
    what: str
    detail: str
    mend: str = ""


def python() -> Iterator[Finding]:
    version = platform.python_version()
    detail = f"{version} at {sys.executable}"
    if sys.version_info[:2] < LEAST_PYTHON:
        least = ".".join(map(str, LEAST_PYTHON))
        yield Finding(PROBLEM, "Python", detail, f"install Python {least} or newer")
    else:
        yield Finding(OK, "Python", detail)
    yield Finding(OK, "platform", f"{platform.platform()} ({platform.machine()})")
    yield Finding(
        OK, "byzerllm", f"{metadata.version('byzerllm')} in {Path(__file__).parent.parent}"
    )


def machine() -> Iterator[Finding]:
    usable, there = config.usable_cores(), os.cpu_count() or 1
    yield Finding(OK, "cores", f"{usable} of {there}" if usable != there else str(there))
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    yield Finding(OK if gpus else NOTE, "GPUs", str(gpus) if gpus else "none; models run on cores")
    free, total = memory()
    if total:
        detail = f"{megabytes(free)} free of {megabytes(total)}"
        few = free < LEAST_MEMORY
        mend = "close other programs, or deploy with --infer_params backend.n_ctx=2048"
        yield Finding(NOTE if few else OK, "memory", detail, mend if few else "")


def engines() -> Iterator[Finding]:
    version = version_of("xllamacpp")
    install = f"{sys.executable} -m pip install 'byzerllm[local]'"
    if version is None:
        yield Finding(PROBLEM, "llama.cpp", "xllamacpp is not installed: no local models", install)
    else:
        # In a process of its own: a build for another processor ends the process that loads it.
        problem = failure_of([sys.executable, "-c", "import xllamacpp"])
        if problem:
            again = f"{install} --force-reinstall"
            yield Finding(PROBLEM, "llama.cpp", f"xllamacpp {version} fails: {problem}", again)
        else:
            yield Finding(OK, "llama.cpp", f"xllamacpp {version}")
    version = version_of("aiohttp")
    if version is None:
        install = f"{sys.executable} -m pip install aiohttp"
        yield Finding(PROBLEM, "hosted models", "aiohttp is not installed", install)
    else:
        yield Finding(OK, "hosted models", f"aiohttp {version}")
    found = [f"{name} {version}" for name in _OPTIONAL if (version := version_of(name))]
    if found:
        yield Finding(NOTE, "also here", f"{', '.join(found)} (not used by this release)")


def cache() -> Iterator[Finding]:
    folder = config.model_cache()
    existing = next(place for place in [folder, *folder.parents] if place.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        yield Finding(
            PROBLEM,
            "model cache",
            f"{folder} cannot be written: {error.strerror}",
            "export BYZERLLM_HOME=FOLDER, one that can be written",
        )
        return
    used = sum(file.stat().st_size for file in models.local_files())
    free = shutil.disk_usage(existing).free
    detail = f"{folder}: {megabytes(used)} used, {megabytes(free)} free on its disk"
    missing = not all(model.present for model in models.CATALOGUE.values())
    if missing and free < ROOM:
        mend = f"free {megabytes(ROOM - free)} there, or export BYZERLLM_HOME=FOLDER elsewhere"
        yield Finding(PROBLEM, "model cache", detail, mend)
    else:
        yield Finding(OK, "model cache", detail)


def bundled() -> Iterator[Finding]:
    for model in models.CATALOGUE.values():
        pull = f"byzerllm models pull {model.name}"
        if not model.path.exists():
            yield Finding(NOTE, model.name, "not fetched yet", pull)
            continue
        try:
            models.verify(model.name)
        except (ModelFileError, LookupError):
            mend = f"byzerllm models remove {model.name} && {pull}"
            yield Finding(PROBLEM, model.name, f"{model.path} is damaged", mend)
        else:
            yield Finding(OK, model.name, f"{model.path}, checked")


def pip() -> Iterator[Finding]:
    version = version_of("pip") if importlib.util.find_spec("pip") else None
    if version is None:
        mend = f"{sys.executable} -m ensurepip"
        yield Finding(PROBLEM, "pip", "not here; it fetches models", mend)
    else:
        yield Finding(OK, "pip", version)


def environment() -> Iterator[Finding]:
    from byzerllm.human.show import masked

    shown = 0
    for name in [*_VARIABLES, *keys()]:
        for spelling in (name, name.lower()):
            value = os.environ.get(spelling)
            if value is None:
                continue
            shown += 1
            # A proxy's or an index's address may carry a password.
            value = re.sub(r"//[^/@\s]*@", "//***@", str(masked(value, spelling)))
            yield Finding(OK, "environment", f"{spelling}={value}")
    if not shown:
        yield Finding(OK, "environment", "nothing set that byzerllm reads")


def terminal() -> Iterator[Finding]:
    if is_terminal(sys.stdin) and is_terminal(sys.stdout):
        yield Finding(OK, "terminal", f"a person can be asked here (TERM={os.environ.get('TERM')})")
    else:
        yield Finding(
            NOTE, "terminal", "none: questions to a person are answered by lines of the input"
        )


CHECKS: list[Callable[[], Iterator[Finding]]] = [
    python,
    machine,
    engines,
    cache,
    bundled,
    pip,
    environment,
    terminal,
]


# -- looking ----------------------------------------------------------------------------------


def memory() -> tuple[int, int]:
    """Bytes free and in all, within the limits of the container; zeros where unknown."""
    table = dict(re.findall(r"^(\w+):\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE))
    total = int(table.get("MemTotal", 0)) * 1024
    free = int(table.get("MemAvailable", 0)) * 1024
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    if limit.isdigit() and int(limit) < total:
        used = _read("/sys/fs/cgroup/memory.current").strip()
        total = int(limit)
        free = min(free, total - int(used or 0))
    return free, total


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError:
        return ""


def version_of(package: str) -> str | None:
    """The installed version, without importing the package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def failure_of(command: list[str]) -> str:
    """Why a command fails; empty if it does not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if not done.returncode:
        return ""
    last = done.stderr.strip().splitlines()[-1:]
    return last[0] if last else f"exit code {done.returncode}"


def keys() -> list[str]:
    """The environment variables that hold the keys of providers."""
    found = {"BYZERLLM_API_KEY"}
    folder = Path(__file__).parent.parent / "saas"
    for file in sorted(folder.glob("[a-z]*.py")):
        provider = getattr(import_module(f"byzerllm.saas.{file.stem}"), "CustomSaasAPI", None)
        found.add(getattr(provider, "api_key_env", ""))
    return sorted(found - {""})
