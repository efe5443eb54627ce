"""The shortest way to put a person in a model's place.

::

    llm.add_event_callback(EventName.BEFORE_CALL_MODEL, ask_human)

From then on every request is printed instead of sent, and what the person types is the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byzerllm.errors import HumanUnavailable
from byzerllm.human.keyboard import KEYBOARD, read_line
from byzerllm.human.show import shown_request

if TYPE_CHECKING:
    from byzerllm.client import ByzerLLM

QUESTION = "answer: "


def ask_human(
    llm: ByzerLLM, model: str, input_value: list[dict[str, Any]]
) -> tuple[bool, list[dict[str, Any]]]:
    """Print each request, ask for its answer with ``input()``, and return the answers.

    One line is read for each request and taken as it is. Questions of several calls at once
    wait for each other.

    Raises:
        HumanUnavailable: the input has ended, or there is none.
    """
    return False, [
        {
            "predict": _ask(model, item),
            "input": item,
            "metadata": {"by": "human", "model": model},
        }
        for item in input_value
    ]


def _ask(model: str, item: dict[str, Any]) -> str:
    with KEYBOARD.turn():
        print(f"--- A request to {model} waits for your answer ---", flush=True)
        print(shown_request(model, item), flush=True)
        try:
            return read_line(QUESTION)
        except (EOFError, OSError) as error:
            raise HumanUnavailable(
                f"A person was to answer for {model!r} and the input has ended; run the program "
                "in a terminal, pipe the answers in, or remove the ask_human callback"
            ) from error
