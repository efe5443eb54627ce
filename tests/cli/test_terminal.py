"""A person at a real terminal, in conversation with the real model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Open, Terminal

QUESTION = "Name the capital of Germany."


@pytest.fixture
def chat(terminal: Open, stocked: Path) -> Terminal:
    """Return a ``byzerllm chat`` that waits for the first message."""
    screen = terminal("chat", "--temperature", "0")
    screen.expect("you> ")
    return screen


@pytest.fixture
def intercepted(terminal: Open, stocked: Path) -> Terminal:
    screen = terminal("chat", "--temperature", "0", "--intercept")
    screen.expect("you> ")
    return screen


def ask(screen: Terminal, question: str = QUESTION) -> None:
    """Say something, and wait until the person is asked for the answer."""
    screen.type(question)
    screen.expect(f"user: {question}")
    screen.expect("/help explains")
    screen.expect("answer: ")


def test_an_answer_comes_with_its_figures_and_ctrl_d_leaves(chat: Terminal) -> None:
    chat.type(QUESTION)
    chat.expect("The capital of Germany is Berlin.")

    figures = re.compile(r"\n\(8 tokens, \d+ tokens/s, first after \d+\.\d\d s, prompt \d+\)\n")
    assert figures.search(chat.expect("you> "))

    chat.press("d")
    assert chat.leave() == 0


def test_ctrl_c_stops_an_answer_and_the_next_question_works(chat: Terminal) -> None:
    chat.type("Tell me a long story about a dragon.")
    chat.expect("mythical creature")
    chat.press("c")
    assert "tokens/s" not in chat.expect("(stopped)")
    chat.expect("you> ")

    chat.type("/clear")
    chat.expect("forgotten")
    chat.type(QUESTION)
    chat.expect("Berlin")
    chat.expect("you> ")
    chat.press("c")
    chat.expect("Ctrl-D leaves")
    chat.press("d")
    assert chat.leave() == 0
    assert "Traceback" not in chat.screen


def test_ctrl_c_while_the_model_loads_leaves_quietly(terminal: Open, stocked: Path) -> None:
    screen = terminal("chat")
    screen.expect("Loading smollm2")
    screen.press("c")

    assert screen.leave() == 130
    assert "error" not in screen.screen
    assert "Traceback" not in screen.screen


def test_a_long_prompt_shows_how_far_it_is_read_and_can_be_stopped(
    terminal: Open, stocked: Path
) -> None:
    screen = terminal("chat", "--system", "The dragon sat on the hill. " * 150)
    screen.expect("you> ")
    screen.type("Where did it sit?")
    screen.expect("reading the prompt: ")
    screen.press("c")
    screen.expect("(stopped)")
    screen.expect("you> ")


def test_the_commands(chat: Terminal, stocked: Path, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    chat.type("/help")
    chat.expect("/load FILE")
    chat.type("/nonsense")
    chat.expect("error: There is no /nonsense; /help lists what there is")
    chat.type("/system You know geography.")
    chat.expect("system: You know geography.")
    chat.type("/many")
    chat.expect("(many lines;")
    chat.type(QUESTION)
    chat.type("In one sentence.")
    chat.type("/end")
    chat.expect("tokens/s")
    chat.type(f"/save {file}")
    chat.expect("2 messages are in")
    chat.type("/clear")
    chat.expect("forgotten")
    chat.type(f"/load {file}")
    chat.expect("2 messages were read")
    chat.type(f"/save {tmp_path}/no/where.json")
    chat.expect("error: ")
    chat.type("/exit")

    assert chat.leave() == 0
    system, question, answer = json.loads(file.read_text())
    assert system == {"role": "system", "content": "You know geography."}
    assert question == {"role": "user", "content": f"{QUESTION}\nIn one sentence."}
    assert answer["role"] == "assistant"


def test_the_history_is_kept_for_its_owner_only(
    chat: Terminal, terminal: Open, stocked: Path
) -> None:
    chat.type(QUESTION)
    chat.expect("tokens/s")
    chat.press("d")
    assert chat.leave() == 0

    file = stocked / "chat_history"
    assert file.read_text() == f"{QUESTION}\n"
    assert file.stat().st_mode & 0o777 == 0o600

    again = terminal("chat", "--human")
    again.expect("you> ")
    again.press("p")  # as the arrow up does
    again.expect(QUESTION)


# -- --intercept ----------------------------------------------------------------------------------


def test_a_person_answers_instead_of_the_model(intercepted: Terminal) -> None:
    ask(intercepted)
    intercepted.type("It is Bonn.")
    intercepted.expect("It is Bonn.\n")  # what was typed
    intercepted.expect("It is Bonn.\n")  # what the program was given
    intercepted.expect("(answered by: human)")
    intercepted.expect("you> ")

    ask(intercepted, "Sure?")
    assert "  assistant: It is Bonn." in intercepted.screen
    intercepted.type("/many")
    intercepted.expect("(many lines")
    intercepted.type("First line,")
    intercepted.type("second line.")
    intercepted.type("/end")
    intercepted.expect("First line,\nsecond line.\n(answered by: human)")

    ask(intercepted, "And now?")
    intercepted.type("//not a command")
    intercepted.expect("/not a command\n(answered by: human)")


def test_a_person_lets_the_model_answer(intercepted: Terminal) -> None:
    ask(intercepted)
    intercepted.type("/copy")
    intercepted.expect("Copied")
    intercepted.expect("answer: ")
    assert "\x1b]52;c;" in intercepted.raw
    intercepted.type("/send")
    intercepted.expect("The capital of Germany is Berlin.")
    intercepted.expect("tokens/s")


def test_a_person_edits_the_request(intercepted: Terminal) -> None:
    ask(intercepted, "Name the capital of Nowhere.")
    intercepted.type("/edit")
    intercepted.expect("The new last message:")
    intercepted.type(QUESTION)
    intercepted.type("/end")
    intercepted.expect("The capital of Germany is Berlin.")
    intercepted.expect("tokens/s")


def test_a_person_refuses_and_the_conversation_goes_on(intercepted: Terminal) -> None:
    ask(intercepted)
    intercepted.type("/no not today")
    intercepted.expect("(refused: not today)")
    intercepted.expect("you> ")

    ask(intercepted)
    intercepted.press("c")
    intercepted.expect("you> ")

    ask(intercepted)
    intercepted.press("d")
    intercepted.expect("the input has ended")
    intercepted.expect("you> ")

    ask(intercepted)
    intercepted.type("Berlin, I think.")
    intercepted.expect("(answered by: human)")
    intercepted.expect("you> ")
    intercepted.press("d")
    assert intercepted.leave() == 0
    assert "Traceback" not in intercepted.screen


# -- --human --------------------------------------------------------------------------------------


def test_a_person_takes_the_place_of_the_model(terminal: Open) -> None:
    screen = terminal("chat", "--human")
    screen.expect("you> ")
    ask(screen, "Who are you?")
    screen.type("/send")
    screen.expect("error: With --human there is no model to send this to")
    screen.expect("you> ")
    ask(screen, "Who are you?")
    screen.type("A person.")
    screen.expect("(answered by: human)")
    screen.expect("you> ")
    screen.press("d")
    assert screen.leave() == 0
