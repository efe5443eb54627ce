"""Conversations become text byte for byte as the models were trained on it."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byzerllm.errors import ConfigError
from byzerllm.prompts import (
    function_calling_format,
    function_impl_format,
    response_class_format,
    response_class_format_after_chat,
)
from byzerllm.templates import (
    HELPFUL_ASSISTANT,
    CutAt,
    Template,
    Templates,
    identity,
    render_chat,
    render_conversation,
    template_named,
)

Message = dict[str, Any]
Make = Callable[[], Template]


def talk(*messages: tuple[str, Any]) -> list[Message]:
    return [{"role": role, "content": content} for role, content in messages]


S, U1, A1, U2 = ("system", "S"), ("user", "U1"), ("assistant", "A1"), ("user", "U2")
FULL = talk(S, U1, A1, U2)
HOLE = "a<｜fim▁hole｜>b"

ALL: dict[str, Make] = {
    name: getattr(Templates, name)
    for name in (
        "qwen",
        "yi",
        "llama",
        "deepseek_code_chat",
        "deepseek_code_insertion",
        "deepseek_code_completion",
        "default",
        "empty",
    )
}
SYSTEM_ONLY = ("deepseek_code_insertion", "deepseek_code_completion")
TURNS = [name for name in ALL if name not in SYSTEM_ONLY]


def render(name: str, *messages: tuple[str, Any]) -> str:
    return render_conversation(talk(*messages), ALL[name]().role_mapping)


# -- the published formats ----------------------------------------------------------------------

# https://huggingface.co/Qwen/Qwen1.5-7B-Chat/blob/main/tokenizer_config.json (chat_template):
# each message is "<|im_start|>", the role, a newline, the content, "<|im_end|>" and a newline;
# the generation prompt is "<|im_start|>assistant" and a newline. Yi's chat models
# (https://huggingface.co/01-ai/Yi-6B-Chat/blob/main/tokenizer_config.json) do the same.
CHATML = (
    "<|im_start|>system\nS<|im_end|>\n"
    "<|im_start|>user\nU1<|im_end|>\n"
    "<|im_start|>assistant\nA1<|im_end|>\n"
    "<|im_start|>user\nU2<|im_end|>\n"
    "<|im_start|>assistant\n"
)

# https://huggingface.co/meta-llama/Llama-2-7b-chat-hf/blob/main/tokenizer_config.json and
# https://github.com/meta-llama/llama/blob/main/llama/generation.py (chat_completion):
# B_INST "[INST]" and E_INST "[/INST]" with one space inside, B_SYS "<<SYS>>\n" and
# E_SYS "\n<</SYS>>\n\n" inside the first instruction; each exchange begins with BOS, and its
# answer, a space on either side, ends with EOS.
LLAMA2 = "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nU1 [/INST] A1 </s><s>[INST] U2 [/INST]"

# https://github.com/deepseek-ai/DeepSeek-Coder#3-chat-model-inference: the system line, then
# "### Instruction:", the question, "### Response:", the answer, "<|EOT|>", a line each.
DEEPSEEK = (
    "S\n### Instruction:\nU1\n### Response:\nA1\n<|EOT|>\n### Instruction:\nU2\n### Response:\n"
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qwen", CHATML),
        ("yi", CHATML),
        ("llama", LLAMA2),
        ("deepseek_code_chat", DEEPSEEK),
        ("deepseek_code_completion", "S"),
        ("default", "S\nUser:U1\nAssistant:A1\nUser:U2\nAssistant:"),
        ("empty", "S\nU1\nA1\nU2"),
    ],
)
def test_a_conversation_is_rendered_byte_for_byte(name: str, text: str) -> None:
    assert render(name, S, U1, A1, U2) == text


def test_fill_in_the_middle_sends_the_marked_system_text_only() -> None:
    # https://github.com/deepseek-ai/DeepSeek-Coder#2-code-insertion
    text = render("deepseek_code_insertion", ("system", HOLE), U1, A1, U2)

    assert text == f"<｜fim▁begin｜>{HOLE}<｜fim▁end｜>"
    assert [hex(ord(c)) for c in text[:13] if not c.isascii()] == ["0xff5c", "0x2581", "0xff5c"]


@pytest.mark.parametrize(
    ("name", "generation_config", "clean"),
    [
        (
            "qwen",
            {
                "generation.repetition_penalty": 1.1,
                "generation.stop_token_ids": [151643, 151645],
            },
            CutAt(("<|im_end|>", "<|endoftext|>", "<|im_start|>")),
        ),
        ("yi", {"generation.stop_token_ids": [7]}, identity),
        ("llama", {}, identity),
        ("deepseek_code_chat", {"generation.stop_token_ids": [32021]}, identity),
        ("deepseek_code_insertion", {}, identity),
        ("deepseek_code_completion", {}, identity),
        ("default", {}, identity),
        ("empty", {}, identity),
    ],
)
def test_settings_and_cleaning_are_the_published_ones(
    name: str, generation_config: dict[str, Any], clean: Callable[[str], str]
) -> None:
    template = ALL[name]()

    assert template.generation_config == generation_config
    assert template.clean_func == clean


# -- beginnings and endings ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qwen", "<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\n"),
        ("yi", "<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\n"),
        ("llama", "<s>[INST] U1 [/INST]"),
        ("deepseek_code_chat", "### Instruction:\nU1\n### Response:\n"),
        ("default", "User:U1\nAssistant:"),
        ("empty", "U1"),
    ],
)
def test_no_system_turn_is_invented(name: str, text: str) -> None:
    assert render(name, U1) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qwen", "<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\nA1"),
        ("yi", "<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\nA1"),
        ("llama", "<s>[INST] U1 [/INST] A1"),
        ("deepseek_code_chat", "### Instruction:\nU1\n### Response:\nA1"),
        ("default", "User:U1\nAssistant:A1"),
        ("empty", "U1\nA1"),
    ],
)
def test_a_final_assistant_message_stays_open(name: str, text: str) -> None:
    assert render(name, U1, A1) == text


@pytest.mark.parametrize("name", TURNS)
def test_an_open_answer_begins_where_the_models_own_would(name: str) -> None:
    asked = render(name, S, U1)
    # Llama's model writes the space itself; where there are no marks at all, turns are lines.
    separator = {"llama": " ", "empty": "\n"}.get(name, "")

    assert render(name, S, U1, A1) == f"{asked}{separator}A1"


@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize("role", ["tool", "function"])
def test_a_tool_message_is_rendered_like_a_user_turn(name: str, role: str) -> None:
    assert render(name, U1, A1, (role, "U2")) == render(name, U1, A1, U2)


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (talk(U1, U2), "<s>[INST] U1\nU2 [/INST]"),
        (talk(S), "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\n [/INST]"),
        (talk(A1, U1), "<s> A1 </s><s>[INST] U1 [/INST]"),
        (
            talk(U1, A1, S, U2),
            "<s>[INST] U1 [/INST] A1 </s><s>[INST] <<SYS>>\nS\n<</SYS>>\n\nU2 [/INST]",
        ),
        (
            talk(("system", " S\n"), ("user", "\tU1 "), ("assistant", "\nA1 "), ("user", " U2 ")),
            LLAMA2,
        ),
        (talk(U1, ("assistant", "A </s>")), "<s>[INST] U1 [/INST] A </s>"),
    ],
    ids=[
        "two questions in a row",
        "a system message alone",
        "an answer first",
        "a later system message",
        "contents are stripped",
        "an answer with an end mark in it",
    ],
)
def test_llama_renders_odd_conversations_too(messages: list[Message], text: str) -> None:
    assert render_conversation(messages, Templates.llama().role_mapping) == text


def test_several_system_messages_make_one_completion_text() -> None:
    assert render("deepseek_code_completion", S, U1, ("system", "T")) == "S\nT"


# -- contents -----------------------------------------------------------------------------------

TRAPS = ["{}", "{system_msg}", "{t}{v}", "%s %(x)s", "\\n", "$x", "{{ x }}", "𝕌 中文\r\n", "{0}"]


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("name", ALL)
def test_contents_are_inserted_verbatim(name: str, trap: str) -> None:
    if name == "llama":
        trap = trap.strip()
    system = trap + HOLE if name == "deepseek_code_insertion" else trap
    plain = render(name, ("system", "%SYS%" + HOLE), ("user", "%USR%"), ("assistant", "%ANS%"), U2)

    text = render(name, ("system", system), ("user", trap), ("assistant", trap), U2)

    wanted = plain.replace("%SYS%" + HOLE, system).replace("%USR%", trap).replace("%ANS%", trap)
    assert text == wanted


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["system", "user", "assistant", "tool"]),
            st.text().filter(lambda text: "<|im_" not in text),
        ),
        min_size=1,
    )
)
def test_chatml_can_be_read_back(messages: list[tuple[str, str]]) -> None:
    text = render("qwen", *messages)

    *closed, last = text.split("<|im_start|>")[1:]
    read = [tuple(turn.removesuffix("<|im_end|>\n").split("\n", 1)) for turn in closed]
    wanted = [("user" if role == "tool" else role, content) for role, content in messages]
    ending = wanted.pop() if wanted[-1][0] == "assistant" else None
    if ending is not None:
        assert tuple(last.split("\n", 1)) == ending
    elif wanted[-1][0] == "user":
        assert last == "assistant\n"
    else:
        read.append(tuple(last.removesuffix("<|im_end|>").split("\n", 1)))
    assert read == wanted


def test_parts_are_flattened() -> None:
    parts = [
        {"type": "text", "text": "See "},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        {"type": "text", "text": "!"},
    ]

    assert render("default", ("user", parts)) == "User:See <image>!\nAssistant:"


def test_a_message_may_lack_content() -> None:
    assert render("default", U1, ("assistant", None), ("tool", "4")) == (
        "User:U1\nAssistant:\nUser:4\nAssistant:"
    )


@pytest.mark.parametrize("name", ALL)
def test_nothing_of_the_caller_is_changed(name: str) -> None:
    messages = talk(("system", HOLE), U1, A1, ("user", [{"type": "text", "text": "U2"}]))
    messages[1]["metadata"] = {"code": 0}
    mapping = ALL[name]().role_mapping
    before = copy.deepcopy((messages, mapping))

    render_conversation(messages, mapping)
    render_chat(HOLE, mapping)

    assert (messages, mapping) == before


# -- a mapping of one's own ---------------------------------------------------------------------


def test_each_role_function_depends_on_its_own_key_only() -> None:
    mapping = {
        "user_role": "U>",
        "assistant_role": "A>",
        "assistant_role_func": lambda t, v: f"({t}{v})",
    }

    text = render_conversation(talk(U1, A1, U2), mapping)

    assert text == "U>U1\n(A>A1)\nU>U2\nA>"


def test_the_system_function_gets_the_pattern_and_the_content() -> None:
    seen = []

    def fill(t: str, v: str) -> str:
        seen.append((t, v))
        return "filled"

    mapping = {"system_msg": "[{system_msg}]", "system_msg_func": fill, "user_role": "U>"}

    assert render_conversation(talk(S, U1), mapping) == "filled\nU>U1"
    assert seen == [("[{system_msg}]", "S")]


def test_a_system_message_replaces_the_literal_one() -> None:
    assert render_conversation(talk(S, U1), {"system_msg": "literal"}) == "S\nU1"


def test_the_placeholder_is_filled_without_a_function_too() -> None:
    mapping = {"system_msg": "<{x}|{system_msg}>"}

    assert render_conversation(talk(("system", "{y}")), mapping) == "<{x}|{y}>"


@pytest.mark.parametrize("mapping", [{}, {"assistant_role": ""}, {"assistant_role": None}])
def test_an_empty_assistant_role_adds_no_line(mapping: dict[str, Any]) -> None:
    assert render_conversation(talk(S, U1), mapping) == "S\nU1"


def test_the_assistant_role_follows_a_user_message_only() -> None:
    mapping = {"assistant_role": "A>"}

    assert render_conversation(talk(U1, S), mapping) == "U1\nS"


@pytest.mark.parametrize("key", ["user_role_func", "system_msg_func", "conversation_func"])
def test_a_function_that_returns_no_text_is_named(key: str) -> None:
    with pytest.raises(TypeError, match=f"{key} .* must return text, not NoneType"):
        render_conversation(talk(S, U1), {key: lambda *args, **kwargs: None})


# -- chat ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "qwen",
            f"<|im_start|>system\n{HELPFUL_ASSISTANT}<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        ),
        ("llama", f"<s>[INST] <<SYS>>\n{HELPFUL_ASSISTANT}\n<</SYS>>\n\nHi [/INST]"),
        ("deepseek_code_chat", f"{HELPFUL_ASSISTANT}\n### Instruction:\nHi\n### Response:\n"),
        ("deepseek_code_completion", "Hi"),
        ("default", f"{HELPFUL_ASSISTANT}\nUser:Hi\nAssistant:"),
        ("empty", "Hi"),
    ],
)
def test_a_single_instruction_is_rendered_with_the_mappings_system_message(
    name: str, text: str
) -> None:
    assert render_chat("Hi", ALL[name]().role_mapping) == text


def test_an_instruction_takes_the_place_of_the_text_to_fill() -> None:
    mapping = Templates.deepseek_code_insertion().role_mapping

    assert render_chat(HOLE, mapping) == f"<｜fim▁begin｜>{HOLE}<｜fim▁end｜>"


@pytest.mark.parametrize(
    ("mapping", "text"),
    [
        ({"user_role": "U>"}, "U>Hi"),
        ({"user_role": "U>", "system_msg": "Be brief {now}."}, "Be brief {now}.\nU>Hi"),
        ({"system_msg": "Be brief.", "assistant_role": "A>"}, "Hi"),
        ({"user_role_func": lambda t, v: f"<{t}{v}>", "assistant_role": "A>"}, "<Hi>\nA>"),
    ],
    ids=["no system message", "a literal one", "no user role", "a function is a role too"],
)
def test_chat_with_a_mapping_of_ones_own(mapping: dict[str, Any], text: str) -> None:
    assert render_chat("Hi", mapping) == text


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "error", "says"),
    [
        ([], ConfigError, "conversation is empty"),
        (talk(U1, ("robot", "x")), ConfigError, "Message 1 has the unknown role 'robot'"),
        ([{"content": "x"}], ConfigError, "needs a 'role'"),
        ([{"role": 7, "content": "x"}], ConfigError, "needs a 'role'"),
        (["hello"], TypeError, "A message is a dict"),
        ("hello", TypeError, "A message is a dict"),
        (talk(("user", 7)), TypeError, "not int"),
        (talk(("user", [{"type": "video"}])), ConfigError, "'video'"),
    ],
)
@pytest.mark.parametrize("name", ALL)
def test_a_wrong_conversation_is_refused(
    name: str, messages: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        render_conversation(messages, ALL[name]().role_mapping)


def test_fill_in_the_middle_needs_the_hole() -> None:
    with pytest.raises(ConfigError, match="<｜fim▁hole｜>"):
        render("deepseek_code_insertion", ("system", "a<|fim_hole|>b"))
    with pytest.raises(ConfigError, match="<｜fim▁hole｜>"):
        render_chat("no hole", Templates.deepseek_code_insertion().role_mapping)


@pytest.mark.parametrize("name", SYSTEM_ONLY)
def test_completion_needs_a_system_message(name: str) -> None:
    with pytest.raises(ConfigError, match="into a system message"):
        render(name, U1)


# -- Template and its names ---------------------------------------------------------------------


def test_a_template_has_the_usual_formatters() -> None:
    template = Template({"user_role": "U>"}, {"generation.top_k": 1})

    assert template.role_mapping == {"user_role": "U>"}
    assert template.generation_config == {"generation.top_k": 1}
    assert template.clean_func("as it is") == "as it is"
    assert template.function_calling_format_func is function_calling_format
    assert template.response_class_format_func is response_class_format
    assert template.response_class_format_after_chat_func is response_class_format_after_chat
    assert template.impl_func_format_func is function_impl_format


def test_a_template_takes_its_parts_in_order() -> None:
    parts: list[Any] = [{}, {}, str.strip, *(lambda *args, n=n: str(n) for n in range(4))]

    template = Template(*parts)

    assert list(vars(template).values()) == parts


@pytest.mark.parametrize("name", ALL)
def test_each_call_gives_a_fresh_template(name: str) -> None:
    one, other = ALL[name](), ALL[name]()

    assert one == other
    assert one.role_mapping is not other.role_mapping
    assert one.generation_config is not other.generation_config


@pytest.mark.parametrize("name", ALL)
def test_a_template_can_be_pickled(name: str) -> None:
    assert pickle.loads(pickle.dumps(ALL[name]())) == ALL[name]()


@pytest.mark.parametrize("name", ALL)
def test_a_template_is_found_by_its_name(name: str) -> None:
    assert template_named(name) == ALL[name]()


@pytest.mark.parametrize("name", ["nothing", "default_format", "", "__init__"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match="there are qwen, yi, llama"):
        template_named(name)


def test_default_format_is_the_words_and_the_message() -> None:
    assert Templates.default_format("User:", "Hi") == "User:Hi"
    assert Templates.default_format(t="{", v="}") == "{}"


# -- cleaning -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "cleaned"),
    [
        ("Rome<|im_end|>\n<|im_start|>user", "Rome"),
        ("Rome<|endoftext|><|im_end|>", "Rome"),
        ("Rome\n<|im_start|>user<|im_end|>", "Rome\n"),
        ("<|im_end|>", ""),
        ("Rome", "Rome"),
        ("Rome <|im_", "Rome <|im_"),
        ("", ""),
    ],
)
def test_qwens_reply_ends_at_the_first_marker(reply: str, cleaned: str) -> None:
    clean = Templates.qwen().clean_func

    assert clean(reply) == cleaned
    assert clean(clean(reply)) == cleaned


@pytest.mark.parametrize(
    ("reply", "settled"),
    [
        ("Rome<|im_end|>x", "Rome"),
        ("Rome<|im_end|", "Rome"),
        ("Rome<", "Rome"),
        ("Rome<|im_x", "Rome<|im_x"),
        ("a < b", "a < b"),
        ("", ""),
    ],
)
def test_a_half_received_marker_is_held_back(reply: str, settled: str) -> None:
    clean = Templates.qwen().clean_func
    assert isinstance(clean, CutAt)

    assert clean.settled(reply) == settled


@given(
    st.lists(st.sampled_from(["a", "<", "|", "ab", "<|", "ab|", "<<|x|>", "|>"])).map("".join),
    st.sampled_from([("<|x|>",), ("<|x|>", "ab|"), ("aab", "<"), ()]),
)
def test_what_is_settled_never_has_to_be_taken_back(text: str, markers: tuple[str, ...]) -> None:
    cut = CutAt(markers)
    shown = [cut.settled(text[:end]) for end in range(len(text) + 1)]

    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(shown))
    assert cut(text).startswith(shown[-1])
    held = cut(text).removeprefix(shown[-1])
    assert held == "" or any(marker.startswith(held) for marker in markers)
