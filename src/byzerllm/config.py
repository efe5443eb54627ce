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
