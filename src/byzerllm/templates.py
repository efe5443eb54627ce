"""How a conversation becomes the one text that a model without a message format reads.

A *role mapping* holds the words around the messages. Its public keys:

``user_role``, ``assistant_role``
    The text before a message of that role.
``system_msg``
    The system message of ``chat``; with the placeholder ``{system_msg}`` in it, or with a
    ``system_msg_func``, the pattern around any system message.
``system_msg_func``, ``user_role_func``, ``assistant_role_func``
    ``f(t=<the mapped string>, v=<the content>) -> str``, in place of *string + content*.

Three more serve the built-in templates:

``last_assistant_role_func``
    The same for an assistant message at the end, which the model is to continue: no end mark.
``conversation_func``
    ``f(turns) -> str`` renders the whole conversation, where the turns are not simply lines.
``system_only``
    True where the model reads no turns at all: it completes the system text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from byzerllm.errors import ConfigError
from byzerllm.messages import content_str, role_of
from byzerllm.prompts.formatters import (
    function_calling_format,
    function_impl_format,
    response_class_format,
    response_class_format_after_chat,
)

HELPFUL_ASSISTANT = (
    "You are a helpful assistant. Think it over and answer the user question correctly."
)
"""The system message of ``chat`` where the user gave none."""

PLACEHOLDER = "{system_msg}"


class Turn(NamedTuple):
    """One message, reduced to what a template renders."""

    role: str
    """``system``, ``user`` or ``assistant``."""
    text: str


# A tool's result is something the model is told, so it takes the user's place.
_RENDERED_AS = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "user",
    "function": "user",
}


def read_turns(conversations: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """The messages as turns, or an error that names the message that cannot be one."""
    if not conversations:
        raise ConfigError("The conversation is empty: give at least one message")
    turns = []
    for number, message in enumerate(conversations):
        role = role_of(message)
        if role not in _RENDERED_AS:
            raise ConfigError(
                f"Message {number} has the unknown role {role!r}; "
                f"known are {', '.join(_RENDERED_AS)}"
            )
        turns.append(Turn(_RENDERED_AS[role], content_str(message.get("content"))))
    return turns


def render_conversation(
    conversations: Sequence[Mapping[str, Any]], role_mapping: Mapping[str, Any]
) -> str:
    """The text a model reads for the conversation.

    >>> render_conversation(
    ...     [{"role": "user", "content": "Hi"}],
    ...     {"user_role": "User:", "assistant_role": "Assistant:"},
    ... )
    'User:Hi\\nAssistant:'
    """
    turns = read_turns(conversations)
    if role_mapping.get("system_only"):
        return _system_text(turns, role_mapping)
    if render := role_mapping.get("conversation_func"):
        return _checked("conversation_func", render(turns))
    lines = [_render_turn(turn, role_mapping) for turn in turns[:-1]]
    lines.append(_render_turn(turns[-1], role_mapping, last=True))
    if turns[-1].role == "user" and role_mapping.get("assistant_role"):
        lines.append(role_mapping["assistant_role"])
    return "\n".join(lines)


def render_chat(instruction: str, role_mapping: Mapping[str, Any]) -> str:
    """The text a model reads for a single instruction, with the mapping's own system message."""
    if role_mapping.get("system_only"):
        return render_conversation([{"role": "system", "content": instruction}], role_mapping)
    if not role_mapping.get("user_role") and not role_mapping.get("user_role_func"):
        return instruction
    is_pattern = role_mapping.get("system_msg_func") or PLACEHOLDER in _pattern(role_mapping)
    system = HELPFUL_ASSISTANT if is_pattern else _pattern(role_mapping)
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": instruction})
    return render_conversation(messages, role_mapping)


def _render_turn(turn: Turn, role_mapping: Mapping[str, Any], *, last: bool = False) -> str:
    if turn.role == "system":
        return _render_system(turn.text, role_mapping)
    words = role_mapping.get(f"{turn.role}_role") or ""
    names = [f"last_{turn.role}_role_func"] if last else []
    for name in [*names, f"{turn.role}_role_func"]:
        if role_mapping.get(name):
            return _checked(name, role_mapping[name](t=words, v=turn.text))
    return Templates.default_format(words, turn.text)


def _render_system(text: str, role_mapping: Mapping[str, Any]) -> str:
    pattern = _pattern(role_mapping)
    if render := role_mapping.get("system_msg_func"):
        return _checked("system_msg_func", render(t=pattern, v=text))
    return _system_format(pattern, text) if PLACEHOLDER in pattern else text


def _checked(name: str, text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{name} of the role mapping must return text, not {type(text).__name__}")
    return text


def _pattern(role_mapping: Mapping[str, Any]) -> str:
    return role_mapping.get("system_msg") or ""


def _system_text(turns: Sequence[Turn], role_mapping: Mapping[str, Any]) -> str:
    texts = [turn.text for turn in turns if turn.role == "system"]
    if not texts:
        raise ConfigError(
            "This template sends the system text only: put the code into a system message"
        )
    return _render_system("\n".join(texts), role_mapping)


# ---------------------------------------------------------------------------------------------
# Cleaning the answer.


def identity(text: str) -> str:
    """The text as it is."""
    return text


@dataclass(frozen=True)
class CutAt:
    """Cuts an answer at the first of the markers.

    >>> CutAt(("<|im_end|>",))("Rome<|im_end|>and more")
    'Rome'
    """

    markers: tuple[str, ...]

    def __call__(self, text: str) -> str:
        return text[: min(_found(text, self.markers), default=len(text))]

    def settled(self, text: str) -> str:
        """The part of a growing answer that later text cannot take back.

        A half received marker at the end is held back:

        >>> CutAt(("<|im_end|>",)).settled("Rome<|im")
        'Rome'
        """
        cut = self(text)
        if len(cut) < len(text):
            return cut
        longest = max((len(marker) for marker in self.markers), default=0)
        for held in range(min(longest - 1, len(text)), 0, -1):
            if any(marker.startswith(text[-held:]) for marker in self.markers):
                return text[:-held]
        return text


def _found(text: str, markers: Sequence[str]) -> list[int]:
    return [place for marker in markers if (place := text.find(marker)) >= 0]


# ---------------------------------------------------------------------------------------------
# The templates.


@dataclass
class Template:
    """How to talk to one kind of model: the words around messages, its settings, its formatters."""

    role_mapping: dict[str, Any]
    generation_config: dict[str, Any]
    clean_func: Callable[[str], str] = identity
    function_calling_format_func: Callable[..., str] = function_calling_format
    response_class_format_func: Callable[..., str] = response_class_format
    response_class_format_after_chat_func: Callable[..., str] = response_class_format_after_chat
    impl_func_format_func: Callable[..., str] = function_impl_format


class Templates:
    """The built-in templates; each call gives a fresh one."""

    @staticmethod
    def default_format(t: str, v: str) -> str:
        """The words before a message, then the message."""
        return f"{t}{v}"

    @staticmethod
    def qwen() -> Template:
        """ChatML with Qwen's stop tokens (``<|endoftext|>``, ``<|im_end|>``)."""
        return Template(
            role_mapping=_chatml(),
            generation_config={
                "generation.repetition_penalty": 1.1,
                "generation.stop_token_ids": [151643, 151645],
            },
            clean_func=CutAt(("<|im_end|>", "<|endoftext|>", "<|im_start|>")),
        )

    @staticmethod
    def yi() -> Template:
        """ChatML with Yi's stop token."""
        return Template(
            role_mapping=_chatml(), generation_config={"generation.stop_token_ids": [7]}
        )

    @staticmethod
    def llama() -> Template:
        """Llama 2 chat: the system text stands inside the first ``[INST]``."""
        return Template(
            role_mapping={
                "user_role": "<s>[INST] ",
                "assistant_role": "",
                "system_msg": _LLAMA_SYSTEM,
                "conversation_func": _llama_text,
            },
            generation_config={},
        )

    @staticmethod
    def deepseek_code_chat() -> Template:
        """DeepSeek Coder's instruction format."""
        return Template(
            role_mapping={
                "user_role": "### Instruction:\n",
                "assistant_role": "### Response:\n",
                "system_msg": HELPFUL_ASSISTANT,
                "assistant_role_func": _deepseek_answer,
                "last_assistant_role_func": Templates.default_format,
            },
            generation_config={"generation.stop_token_ids": [32021]},
        )

    @staticmethod
    def deepseek_code_insertion() -> Template:
        """DeepSeek Coder fills the ``<｜fim▁hole｜>`` in the system text."""
        return Template(
            role_mapping={
                "user_role": "",
                "assistant_role": "",
                "system_msg": f"<｜fim▁begin｜>{PLACEHOLDER}<｜fim▁end｜>",
                "system_msg_func": _fim_format,
                "system_only": True,
            },
            generation_config={},
        )

    @staticmethod
    def deepseek_code_completion() -> Template:
        """DeepSeek Coder continues the system text."""
        return Template(
            role_mapping={
                "user_role": "",
                "assistant_role": "",
                "system_msg": PLACEHOLDER,
                "system_only": True,
            },
            generation_config={},
        )

    @staticmethod
    def default() -> Template:
        """``User:`` and ``Assistant:`` before the messages."""
        return Template(
            role_mapping={
                "user_role": "User:",
                "assistant_role": "Assistant:",
                "system_msg": HELPFUL_ASSISTANT,
            },
            generation_config={},
        )

    @staticmethod
    def empty() -> Template:
        """The contents of the messages and nothing else."""
        return Template(
            role_mapping={"user_role": "", "assistant_role": "", "system_msg": ""},
            generation_config={},
        )


_BUILT_IN: dict[str, Callable[[], Template]] = {
    make.__name__: make
    for make in (
        Templates.qwen,
        Templates.yi,
        Templates.llama,
        Templates.deepseek_code_chat,
        Templates.deepseek_code_insertion,
        Templates.deepseek_code_completion,
        Templates.default,
        Templates.empty,
    )
}


def template_named(name: str) -> Template:
    """The built-in template of that name, as ``setup_template(model, "qwen")`` asks for it."""
    if name not in _BUILT_IN:
        raise ConfigError(
            f"There is no template {name!r}; there are {', '.join(_BUILT_IN)}, and 'auto'"
        )
    return _BUILT_IN[name]()


# ---------------------------------------------------------------------------------------------
# Their words. Functions, not lambdas: a role mapping can be pickled.


def _system_format(t: str, v: str) -> str:
    # replace() and not format(): braces in the pattern or the content mean nothing.
    return t.replace(PLACEHOLDER, v)


def _chatml() -> dict[str, Any]:
    return {
        "user_role": "<|im_start|>user\n",
        "assistant_role": "<|im_start|>assistant\n",
        "system_msg": f"<|im_start|>system\n{PLACEHOLDER}<|im_end|>",
        "system_msg_func": _system_format,
        "user_role_func": _chatml_turn,
        "assistant_role_func": _chatml_turn,
        "last_assistant_role_func": Templates.default_format,
    }


def _chatml_turn(t: str, v: str) -> str:
    return f"{t}{v}<|im_end|>"


def _deepseek_answer(t: str, v: str) -> str:
    return f"{t}{v}\n<|EOT|>"


def _fim_format(t: str, v: str) -> str:
    if "<｜fim▁hole｜>" not in v:
        raise ConfigError(
            "Mark the place to fill with <｜fim▁hole｜> (bars U+FF5C, underscores U+2581)"
        )
    return _system_format(t, v)


def _llama_text(turns: Sequence[Turn]) -> str:
    """``<s>[INST] … [/INST] answer </s>`` for each exchange, the answer at the end left open."""
    text = ""
    systems: list[str] = []
    asked: list[str] = []
    for turn in turns:
        if turn.role == "system":
            systems.append(turn.text.strip())
        elif turn.role == "user":
            asked.append(turn.text.strip())
        else:
            text += f"{_llama_instruction(systems, asked)} {turn.text.strip()} </s>"
            systems, asked = [], []
    if systems or asked:
        return text + _llama_instruction(systems, asked)
    return text.removesuffix(" </s>")


def _llama_instruction(systems: list[str], asked: list[str]) -> str:
    if not systems and not asked:
        return "<s>"
    system = _system_format(_LLAMA_SYSTEM, "\n".join(systems)) if systems else ""
    return "<s>[INST] " + system + "\n".join(asked) + " [/INST]"


_LLAMA_SYSTEM = f"<<SYS>>\n{PLACEHOLDER}\n<</SYS>>\n\n"
