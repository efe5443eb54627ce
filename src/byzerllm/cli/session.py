"""The conversation of ``byzerllm chat``: lines in, answers out, and the commands between."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm.cli.answering import answer
from byzerllm.errors import ByzerError, CallDenied, ConfigError

if TYPE_CHECKING:
    from byzerllm.cli.lines import Lines
    from byzerllm.cli.screen import Screen
    from byzerllm.client import ByzerLLM
    from byzerllm.events.hooks import Installable
    from byzerllm.types.records import Message

PROMPT = "you> "
HELP = """\
  /system [TEXT]   show or set what the model is told first; /system - takes it away
  /clear           forget the conversation
  /many            a message of many lines; /end on a line of its own sends it
  /save FILE       write the conversation as JSON
  /load FILE       go on with a conversation that was saved
  /exit            leave, as Ctrl-D does
  //text           a message that begins with a slash
  Ctrl-C stops an answer."""


class Session:
    """A person, or a pipe, in conversation with the default model of ``llm``.

    At a terminal an error is shown and the conversation goes on; from a pipe, where every line
    is a message and nothing is a command, the first error ends it.
    """

    def __init__(
        self,
        llm: ByzerLLM,
        screen: Screen,
        lines: Lines,
        *,
        system: str = "",
        settings: dict[str, Any] | None = None,
        bundles: Sequence[Installable] = (),
    ) -> None:
        self.system = system
        self.messages: list[Message] = []
        """What was said so far, without the system message."""
        self._llm = llm
        self._screen = screen
        self._lines = lines
        self._settings = settings or {}
        self._bundles = bundles
        self._own_files: set[Path] = set()
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": self._help,
            "/system": self._set_system,
            "/clear": self._clear,
            "/many": self._many,
            "/save": self._save,
            "/load": self._load,
        }

    def run(self) -> None:
        """Converse until the input ends."""
        while True:
            try:
                line = self._lines.read(PROMPT)
                if self._screen.person and line.strip() in ("/exit", "/quit"):
                    return
                self._take(line)
            except EOFError:
                self._screen.note("")
                return
            except KeyboardInterrupt:
                if not self._screen.person:
                    raise
                self._screen.note("\n(/exit or Ctrl-D leaves)")
            except CallDenied as error:
                if not self._screen.person:
                    raise
                self._screen.note(f"(refused: {error})")
            except ByzerError as error:
                if not self._screen.person:
                    raise
                self._screen.complain(error)

    def _take(self, line: str) -> None:
        """One line: a command or a message."""
        if not line.strip():
            return
        if not self._screen.person:
            self.say(line)
        elif line.startswith("//"):
            self.say(line[1:])
        elif line.startswith("/"):
            name, _, rest = line.strip().partition(" ")
            if name not in self._commands:
                raise ConfigError(f"There is no {name}; /help lists what there is")
            self._commands[name](rest.strip())
        else:
            self.say(line)

    def say(self, text: str) -> None:
        """Send a message and show the answer; both are kept if there is one."""
        question = {"role": "user", "content": text}
        spoken = answer(
            self._llm,
            [*self._conversation(), question],
            self._settings,
            self._screen,
            bundles=self._bundles,
            may_stop=self._screen.person,
        )
        self._screen.note(f"({spoken.figures})")
        if spoken.text:
            self.messages += [question, {"role": "assistant", "content": spoken.text}]

    def _conversation(self) -> list[Message]:
        first = [{"role": "system", "content": self.system}] if self.system else []
        return [*first, *self.messages]

    # -- commands ---------------------------------------------------------------------------

    def _help(self, _: str) -> None:
        self._screen.note(HELP)

    def _set_system(self, text: str) -> None:
        if text:
            self.system = "" if text == "-" else text
        self._screen.note(f"system: {self.system or '(none)'}")

    def _clear(self, _: str) -> None:
        self.messages.clear()
        self._screen.note("The conversation is forgotten.")

    def _many(self, _: str) -> None:
        self._screen.note("(many lines; /end on a line of its own sends them)")
        text = self._lines.read_many()
        if text.strip():
            self.say(text)

    def _save(self, name: str) -> None:
        file = _file(name, "/save")
        if file.exists() and file not in self._own_files:
            raise ConfigError(f"{file} is there already; choose another name")
        text = json.dumps(self._conversation(), ensure_ascii=False, indent=2) + "\n"
        fresh = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            fresh.write_text(text, "utf-8")
            fresh.replace(file)
        except OSError as error:
            raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
        self._own_files.add(file)
        self._screen.note(f"{len(self.messages)} messages are in {file}.")

    def _load(self, name: str) -> None:
        file = _file(name, "/load")
        self.system, self.messages = read_saved(file)
        self._own_files.add(file)
        self._screen.note(f"{len(self.messages)} messages were read; go on.")


def read_saved(file: Path) -> tuple[str, list[Message]]:
    """The system text and the other messages of a saved conversation.

    Raises:
        ConfigError: it is no such file.
    """
    from byzerllm.client.conversation import read_conversation

    try:
        saved = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{file} is not a saved conversation: {error}") from error
    if not isinstance(saved, list):
        raise ConfigError(f"{file} is not a saved conversation: a list of messages was due")
    messages = read_conversation(saved) if saved else []
    system = ""
    if messages and messages[0].get("role") == "system":
        system = str(messages.pop(0)["content"])
    return system, messages


def _file(name: str, command: str) -> Path:
    if not name:
        raise ConfigError(f"{command} needs the name of a file: {command} talk.json")
    return Path(name).expanduser()
