"""Which runtime a client uses: the cluster it names, else Ray if it runs, else this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from byzerllm.errors import NotYet
from byzerllm.runtime.base import Runtime
from byzerllm.runtime.embedded import EmbeddedRuntime

_embedded = EmbeddedRuntime()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_embedded.forget_calls)


def choose(url: str | None) -> Runtime:
    """The runtime for a client made with ``ByzerLLM(url=...)``.

    Raises:
        NotYet: a Ray cluster was chosen, by ``url`` or because Ray is initialised here.
    """
    if url:
        raise NotYet(
            f"The cluster {url!r} was chosen, and Ray clusters come with a later release. "
            "Leave url out to run the model in this process"
        )
    ray = sys.modules.get("ray")  # never imported by us: only looked at if it is there
    if ray is not None and getattr(ray, "is_initialized", bool)():
        raise NotYet(
            "Ray is initialised in this process, and Ray clusters come with a later release. "
            "Call ray.shutdown() first to run the model in this process"
        )
    return _embedded


def connect_cluster(
    address: str = "auto",
    java_home: str | None = None,
    code_search_path: list[str] | None = None,
    init_options: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Join a Ray cluster, so that every client of this process uses it.

    Raises:
        NotYet: in this release models run in this process.
    """
    raise NotYet(
        "Ray clusters come with a later release. Models run in this process without "
        "connect_cluster(): leave the call out"
    )
