"""A person in the model's place, through the richer terminal surface and surfaces of one's own."""

from __future__ import annotations

import asyncio
import builtins
import sys
import threading
from typing import Any

import pytest

from byzerllm import ByzerLLM, portal
from byzerllm.client import parallel
from byzerllm.errors import (
    CallAborted,
    CallDenied,
    ConfigError,
    HumanUnavailable,
    ProviderUnreachable,
)
from byzerllm.events import Answer, Deny
from byzerllm.human import Desk, HumanModel, Ticket
from byzerllm.human.keyboard import Keyboard as Keyboards
from byzerllm.testing import ScriptedModel, llm_for

ASK = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Capital?"}]


def make(script: Any = "Berlin.") -> tuple[ByzerLLM, ScriptedModel]:
    model = ScriptedModel(script)
    return llm_for(model), model


class Keyboard:
    """What a person types, at a terminal or through a pipe."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, at_terminal: bool) -> None:
        self.lines: list[str] = []
        monkeypatch.setattr(builtins, "input", self.input)
        monkeypatch.setattr(sys.stdin, "isatty", lambda: at_terminal, raising=False)

    def input(self, prompt: str = "") -> str:
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Keyboard:
    return Keyboard(monkeypatch, at_terminal=True)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Keyboard:
    return Keyboard(monkeypatch, at_terminal=False)


def test_one_line_is_an_answer(terminal: Keyboard, capsys: pytest.CaptureFixture[str]) -> None:
    llm, model = make()
    terminal.lines = ["Bonn"]
    with llm.hooks(HumanModel(surface="terminal")):
        response = llm.chat_oai(ASK, llm_config={"temperature": 0.3})[0]
    assert (response.output, response.metadata["by"]) == ("Bonn", "human")
    assert model.requests == []
    shown = capsys.readouterr().out
    for part in ["chat_oai asks", "temperature: 0.3", "system: Be short.", "user: Capital?"]:
        assert part in shown


def test_many_lines_follow_an_opener_only(terminal: Keyboard) -> None:
    llm, _ = make()
    terminal.lines = ["/many", "first", "", "/no second", "/end", "left for others"]
    with llm.hooks(HumanModel()):
        assert llm.chat_oai(ASK)[0].output == "first\n\n/no second"
    assert terminal.lines == ["left for others"]


def test_sending_it_on_lets_the_model_answer(terminal: Keyboard) -> None:
    llm, _ = make()
    terminal.lines = ["/send"]
    with llm.hooks(HumanModel()):
        assert llm.chat_oai(ASK)[0].output == "Berlin."


def test_the_request_can_be_edited_first(terminal: Keyboard) -> None:
    llm, model = make()
    terminal.lines = ["/edit", "Capital of", "France?", "/end"]
    with llm.hooks(HumanModel()):
        assert llm.chat_oai(ASK)[0].output == "Berlin."
    assert model.requests[0].messages == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Capital of\nFrance?"},
    ]
    assert ASK[1]["content"] == "Capital?"


def test_a_person_can_refuse_with_a_reason(terminal: Keyboard) -> None:
    llm, _ = make()
    terminal.lines = ["/no too personal"]
    with llm.hooks(HumanModel()), pytest.raises(CallDenied, match="too personal"):
        llm.chat_oai(ASK)


def test_copy_help_and_slips_stay_in_the_question(
    terminal: Keyboard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    llm, _ = make()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    terminal.lines = ["/copy", "/help", "/nope", "//slash answer"]
    with llm.hooks(HumanModel()):
        assert llm.chat_oai(ASK)[0].output == "/slash answer"
    shown = capsys.readouterr().out
    assert "\x1b]52;c;QmUgc2hvcnQuCkNhcGl0YWw/\x07" in shown  # base64 of the two messages
    assert shown.count("an answer of many lines") == 2  # /help, and the slip
    assert "There is no /nope" in shown


def test_from_a_pipe_every_line_is_an_answer_as_it_is(pipe: Keyboard) -> None:
    llm, _ = make()
    pipe.lines = ["/send", "  spaced  "]
    with llm.hooks(HumanModel()):
        assert llm.chat_oai(ASK)[0].output == "/send"
        assert llm.chat_oai(ASK)[0].output == "  spaced  "


@pytest.mark.parametrize("lines", [[], ["/many", "begun"]])
def test_the_end_of_input_is_a_clear_error(terminal: Keyboard, lines: list[str]) -> None:
    llm, _ = make()
    terminal.lines = lines
    with llm.hooks(HumanModel()):
        with pytest.raises(HumanUnavailable, match="input has ended"):
            llm.chat_oai(ASK)
        terminal.lines = ["Bonn"]
        assert llm.chat_oai(ASK)[0].output == "Bonn"


def test_streams_and_async_calls_are_answered_too(terminal: Keyboard) -> None:
    llm, _ = make()
    terminal.lines = ["one", "two", "three"]

    async def ask() -> list[str]:
        texts = [str((await llm.async_chat_oai(ASK))[0].output)]
        return texts + [text async for text, _ in llm.async_stream_chat_oai(ASK)]

    with llm.hooks(HumanModel()):
        assert [text for text, _ in llm.stream_chat_oai(ASK)] == ["one"]
        assert asyncio.run(ask()) == ["two", "three"]


def test_when_chooses_the_calls_that_go_to_a_person(terminal: Keyboard) -> None:
    llm, _ = make()
    human = HumanModel(when=lambda event: bool(event.request.params.get("human_as_model")))
    terminal.lines = ["Bonn"]
    with llm.hooks(human):
        assert llm.chat_oai(ASK)[0].output == "Berlin."
        assert llm.chat_oai(ASK, llm_config={"human_as_model": True})[0].output == "Bonn"


def test_a_person_decides_once_for_all_attempts(
    terminal: Keyboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byzerllm.client.attempts.FIRST_PAUSE", 0.001)
    llm, model = make([ProviderUnreachable("gone"), "Berlin."])
    terminal.lines = ["/send"]
    with llm.hooks(HumanModel()):
        assert llm.chat_oai(ASK)[0].output == "Berlin."
    assert len(model.requests) == 2


# -- surfaces of one's own --------------------------------------------------------------------


class Later:
    """Decides from another thread, after the surface has returned."""

    def __init__(self, verdict: Any = None, seconds: float = 0.01) -> None:
        self.verdict = verdict
        self.seconds = seconds
        self.tickets: list[Ticket] = []

    def present(self, ticket: Ticket, desk: Desk) -> None:
        self.tickets.append(ticket)
        timer = threading.Timer(self.seconds, lambda: desk.resolve(ticket, self.verdict))
        timer.daemon = True
        timer.start()


class Never:
    def present(self, ticket: Ticket, desk: Desk) -> None:
        pass


def test_a_surface_may_resolve_later_from_anywhere() -> None:
    llm, _ = make()
    desk = Desk()
    surface = Later(Answer("from the web", by="ann"))
    with llm.hooks(HumanModel(surface=surface, desk=desk)):
        response = llm.chat_oai(ASK)[0]
    assert (response.output, response.metadata["by"]) == ("from the web", "ann")
    assert desk.waiting == []
    with llm.hooks(HumanModel(surface=Later(Deny("no")), desk=desk)), pytest.raises(CallDenied):
        llm.chat_oai(ASK)


def test_a_ticket_is_resolved_once() -> None:
    llm, _ = make()
    desk = Desk()
    surface = Later(Answer("first"))
    with llm.hooks(HumanModel(surface=surface, desk=desk)):
        llm.chat_oai(ASK)
    with pytest.raises(ConfigError, match="resolved already"):
        desk.resolve(surface.tickets[0], Answer("second"))


@pytest.mark.parametrize(
    ("on_timeout", "outcome"), [("model", "Berlin."), (Answer("default"), "default")]
)
def test_a_timeout_has_an_outcome_of_its_own(on_timeout: Any, outcome: str) -> None:
    llm, _ = make()
    human = HumanModel(surface=Never(), timeout=0.02, on_timeout=on_timeout)
    with llm.hooks(human):
        assert llm.chat_oai(ASK)[0].output == outcome


def test_a_timeout_is_not_a_refusal() -> None:
    llm, _ = make()
    human = HumanModel(surface=Never(), timeout=0.02)
    with llm.hooks(human), pytest.raises(HumanUnavailable, match="No person answered"):
        llm.chat_oai(ASK)


@pytest.mark.parametrize("options", [{"surface": "pigeon"}, {"on_timeout": "shrug"}])
def test_unknown_options_are_refused(options: Any) -> None:
    with pytest.raises(ConfigError):
        HumanModel(**options)


def test_cancelled_calls_leave_no_ticket_and_no_thread() -> None:
    llm, _ = make()
    desk = Desk()
    human = HumanModel(surface=Never(), desk=desk)

    async def main() -> None:
        with llm.hooks(human):
            calls = [asyncio.ensure_future(llm.async_chat_oai(ASK)) for _ in range(3)]
            while len(desk.waiting) < 3:  # noqa: ASYNC110  # tickets come from threads
                await asyncio.sleep(0.005)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    before = threading.active_count()
    asyncio.run(main())
    assert desk.waiting == []
    for _ in range(200):
        if threading.active_count() <= before:
            break
        threading.Event().wait(0.01)
    assert threading.active_count() <= before


def test_the_question_after_a_timeout_is_asked_and_gets_the_next_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    llm, _ = make()
    typed = threading.Event()

    def slow(prompt: str = "") -> str:
        assert typed.wait(10)
        return "late, but for the second question"

    monkeypatch.setattr(builtins, "input", slow)
    with llm.hooks(HumanModel(timeout=0.05, on_timeout="model")):
        assert llm.chat_oai(ASK)[0].output == "Berlin."
    threading.Timer(0.05, typed.set).start()
    with llm.hooks(HumanModel()):
        assert llm.chat_oai(ASK)[0].output == "late, but for the second question"


def test_parallel_calls_may_have_a_person_of_their_own(pipe: Keyboard) -> None:
    llm, _ = make()
    pipe.lines = ["one", "two", "three"]
    results = parallel.chat_oai(llm, workers=3, conversations=ASK, hooks=[HumanModel()])
    assert sorted(result[0].output for result in results) == ["one", "three", "two"]


def test_nothing_typed_at_a_terminal_is_asked_again(terminal: Keyboard) -> None:
    llm, _ = make()
    terminal.lines = ["", "Bonn", "//"]
    with llm.hooks(HumanModel()):
        assert llm.chat_oai(ASK)[0].output == "Bonn"
        assert llm.chat_oai(ASK)[0].output == ""


def test_a_line_that_comes_as_its_asker_leaves_goes_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asker = portal.Abandoned()

    def typed(prompt: str = "") -> str:
        asker.set()  # the call is cancelled in the very moment the line is there
        return "for the next"

    monkeypatch.setattr(builtins, "input", typed)
    keyboard = Keyboards()

    def ask() -> None:
        portal.abandoned.set(asker)
        with pytest.raises(CallAborted):
            keyboard.read("")

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert keyboard.read("") == "for the next"
