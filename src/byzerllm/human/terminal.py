"""Asking a person at the terminal: what is shown, and what can be answered."""

from __future__ import annotations

import base64
import sys
from dataclasses import replace

from byzerllm.errors import CallAborted, HumanUnavailable
from byzerllm.events.payloads import BeforeModel
from byzerllm.events.verdicts import Answer, Deny
from byzerllm.human.desk import Desk, Ticket, Verdict
from byzerllm.human.keyboard import KEYBOARD, read_line
from byzerllm.human.show import printable, shown_request
from byzerllm.types.records import Generate, Request

HELP = """\
  an answer of one line: type it
  /many            an answer of many lines; /end on a line of its own ends it
  /send            let the model answer
  /edit            write the last message anew, then let the model answer
  /copy            copy the request to the clipboard, and stay here
  /no [reason]     refuse the call
  //text           an answer that begins with a slash"""
_ENDS = ("/end", "/eof")


class TerminalSurface:
    """Shows a ticket on standard output and reads the verdict with ``input()``.

    Commands and answers of many lines are offered where standard input is a terminal. From a
    pipe, one line is one answer, taken as it is.
    """

    def present(self, ticket: Ticket, desk: Desk) -> None:
        """Ask, and resolve the ticket."""
        try:
            with KEYBOARD.turn() as behind:
                if ticket not in desk.waiting:
                    return
                verdict = self._ask(ticket, behind)
                if ticket not in desk.waiting:
                    print("Too late: the call has given up waiting for this answer.", flush=True)
                    return
                desk.resolve(ticket, verdict)
        except CallAborted:
            return  # nobody waits for this ticket any more
        except (EOFError, OSError) as error:
            problem = HumanUnavailable(
                f"A person was to answer for {ticket.event.request.model!r} and the input "
                "has ended; run the program in a terminal or pipe the answers in"
            )
            problem.__cause__ = error
            desk.drop(ticket, problem)

    def _ask(self, ticket: Ticket, behind: int) -> Verdict:
        event = ticket.event
        waiting = f", {behind} more wait" if behind else ""
        print(f"\n─── question {ticket.number}: {event.ctx.method} asks{waiting} ───")
        print(shown(event.request), flush=True)
        at_terminal = sys.stdin is not None and sys.stdin.isatty()
        if not at_terminal:
            return Answer(read_line("answer: "), by="human")
        print("─── answer, /send, /edit, /copy, /no, /many; /help explains ───", flush=True)
        while True:
            line = read_line("answer: ")
            command, _, rest = line.strip().partition(" ")
            if not line:
                print("(nothing typed; an answer of no text is //)", flush=True)
                continue
            if line.startswith("//"):
                return Answer(line[1:] if line != "//" else "", by="human")
            if command == "/many":
                return Answer(_many_lines(), by="human")
            if command == "/send":
                return None
            if command == "/no":
                return Deny(rest.strip() or "Refused by a person")
            if command == "/edit":
                return _edited(event)
            if command == "/copy":
                print(copy_to_clipboard(shown_text(event.request)), flush=True)
            elif command == "/help":
                print(HELP, flush=True)
            elif command.startswith("/"):
                print(f"There is no {printable(command)}.\n{HELP}", flush=True)
            else:
                return Answer(line, by="human")


def shown(request: Request) -> str:
    """A request in full: the model, every setting, every message."""
    if not isinstance(request, Generate):
        return printable(f"model: {request.model}\n{request!r}")
    if request.messages is None:
        return shown_request(request.model, {"prompt": request.prompt, **request.params})
    return shown_request(request.model, {**request.params, "history": request.messages})


def shown_text(request: Request) -> str:
    """What a person would paste elsewhere: the words the model would read."""
    return request.text if isinstance(request, Generate) else repr(request)


def _many_lines() -> str:
    print(f"(many lines; {_ENDS[0]} on a line of its own ends the answer)", flush=True)
    lines: list[str] = []
    while (line := read_line()).strip() not in _ENDS:
        lines.append(line)
    return "\n".join(lines)


def _edited(event: BeforeModel) -> BeforeModel:
    """The request with its last message written anew."""
    request = event.request
    assert isinstance(request, Generate)
    print("The new last message:", flush=True)
    text = _many_lines()
    if request.messages is None:
        return replace(event, request=replace(request, prompt=text))
    last = {**request.messages[-1], "content": text}
    return replace(event, request=replace(request, messages=[*request.messages[:-1], last]))


def copy_to_clipboard(text: str) -> str:
    """Copy through the terminal itself (OSC 52), which works over SSH too; says what it did.

    https://invisible-island.net/xterm/ctlseqs/ctlseqs.html#h3-Operating-System-Commands
    """
    if not sys.stdout.isatty():
        return "Not copied: standard output is not a terminal."
    code = base64.b64encode(text.encode()).decode()
    sys.stdout.write(f"\x1b]52;c;{code}\x07")
    sys.stdout.flush()
    return f"Copied {len(text)} characters (if your terminal allows programs to copy)."
