"""Asking the same question several times at once."""

from __future__ import annotations

import contextvars
import copy
import logging
import threading
from typing import TYPE_CHECKING, Any

from byzerllm.errors import ConfigError

if TYPE_CHECKING:
    from byzerllm.client.byzerllm import ByzerLLM

logger = logging.getLogger(__name__)


def chat_oai(llm: ByzerLLM, workers: int = 3, **kwargs: Any) -> list[Any]:
    """Call ``llm.chat_oai(**kwargs)`` ``workers`` times in threads; the results in order.

    Failed calls are left out and logged. Where all fail, the first failure is raised.
    """
    if workers < 1:
        raise ConfigError(f"workers={workers}; at least 1 is needed")
    outcomes: list[Any] = [None] * workers

    def ask(place: int) -> None:
        try:
            # A conversation of its own: what a formatter or a hook does to one leaves the others.
            own = {**kwargs, "conversations": copy.deepcopy(kwargs.get("conversations"))}
            outcomes[place] = llm.chat_oai(**own)
        except Exception as error:
            outcomes[place] = error

    threads = [
        # Daemons, since a thread that waits for a person must not keep the program from ending;
        # with the caller's context, since `with llm.hooks(...)` is part of it.
        threading.Thread(target=contextvars.copy_context().run, args=(ask, place), daemon=True)
        for place in range(workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    for failure in failures:
        logger.warning("A parallel call failed: %s", failure)
    if len(failures) == workers:
        raise failures[0]
    return [outcome for outcome in outcomes if not isinstance(outcome, Exception)]


def get_single_result(ts: list[Any]) -> Any:
    """The first result that holds an answer, or ``None``.

    A result is what one ``chat_oai`` gave: its first response counts where it has a non-empty
    ``output`` or ``values``, or a ``value`` that is not ``None`` (0 and False count).
    """
    for result in ts:
        first = result[0] if result else None
        if first is None:
            continue
        if hasattr(first, "value"):
            found = first.value is not None
        elif hasattr(first, "values"):
            found = bool(first.values)
        else:
            found = bool(getattr(first, "output", None))
        if found:
            return result
    return None
