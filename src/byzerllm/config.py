"""Settings of the machine, from the environment.

``BYZERLLM_HOME``: where models are kept (else the user's cache folder).
"""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The folder in which byzerllm keeps what it fetches."""
    chosen = os.environ.get("BYZERLLM_HOME")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("byzerllm")


def model_cache() -> Path:
    """The folder of model files."""
    return home() / "models"


def usable_cores() -> int:
    """The cores this process may use: fewer than the machine has in many containers."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    try:
        quota, _, period = Path("/sys/fs/cgroup/cpu.max").read_text("utf-8").partition(" ")
    except OSError:
        return cores
    if quota.isdigit() and period.strip().isdigit():
        cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores
