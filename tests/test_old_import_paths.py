"""Programs for earlier releases import from these paths, with nothing optional installed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# What an import of ours must not need.
OPTIONAL = """
    PIL anthropic boto3 docker duckdb fastapi google.genai numpy openai pyjava ray redis sqlalchemy
    torch transformers uvicorn vllm xllamacpp
"""

# Old path -> {where the thing really is: names}. Old and new must be the same object.
MOVED = {
    "byzerllm": {
        "byzerllm.client": "ByzerLLM",
        "byzerllm.params": "parse_params",
    },
    "byzerllm.utils": {
        "byzerllm.capture": "exec_capture_output",
        "byzerllm.legacy": """
            generate_file_md5 generate_str_md5 load_json_str print_flush random_uuid timeit
        """,
        "byzerllm.prompts": """
            BaseAbility base_ability_format format_prompt format_prompt_jinja2 format_str_jinja2
            function_calling_format function_impl_format get_type_name is_annotated_type
            response_class_format response_class_format_after_chat serialize_function_to_json
            sys_function_calling_format sys_function_impl_format sys_response_class_format
        """,
        "byzerllm.types": """
            FUNCTION_CALLING_SCHEMA FunctionCall FunctionCallList FunctionCallWrapper SingleOutput
            SingleOutputMeta StreamOutputs
        """,
    },
    "byzerllm.utils.types": {
        "byzerllm.types": "SingleOutput SingleOutputMeta StreamOutputs",
    },
    "byzerllm.utils.client": {
        "byzerllm.client": "ByzerLLM default_chat_wrapper",
        "byzerllm.templates": "Template Templates",
        "byzerllm.types": """
            EventCallback EventCallbackResult EventName ExecuteCodeResponse FintuneRequest
            FintuneRequestExtra InferBackend LLMClassResponse LLMFunctionCallResponse
            LLMHistoryItem LLMRequest LLMResponse Role
        """,
    },
    "byzerllm.utils.client.types": {
        "byzerllm.templates": "Template",
        "byzerllm.types": """
            EventCallback EventCallbackResult EventName ExecuteCodeResponse FintuneRequest
            FintuneRequestExtra FunctionCall FunctionCallList FunctionCallWrapper InferBackend
            LLMClassResponse LLMFunctionCallResponse LLMHistoryItem LLMRequest LLMResponse Role
        """,
    },
    "byzerllm.utils.client.message_utils": {
        "byzerllm.messages": """
            check_error_count copy_error_count fail_message get_error_count inc_error_count
            is_success padding_messages_expand padding_messages_merge success_message
            termindate_message un_termindate_message
        """,
    },
}

# Old path -> names that must be there; where they really are is nobody's business.
OFFERED = {
    "byzerllm": "connect_cluster prompt",
    "byzerllm.utils.client": "code_utils message_utils",
    "byzerllm.utils.client.code_utils": "content_str",
    "byzerllm.utils.client.parallel_utils": "chat_oai get_single_result",
    "byzerllm.saas.openai": "CustomSaasAPI",
    "byzerllm.saas.official_openai": "CustomSaasAPI",
    "byzerllm.saas.reasoning_openai": "CustomSaasAPI",
}

CHECK = """
import importlib, json, sys

old, moved, offered, optional = json.loads(sys.argv[1])

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in optional or name.partition(".")[0] in optional:
            raise ModuleNotFoundError(f"{name} is optional, but was imported", name=name)

sys.meta_path.insert(0, Blocker())
module = importlib.import_module(old)
problems = [f"{old} has no {name}" for name in offered if not hasattr(module, name)]
for home, names in moved.items():
    real = importlib.import_module(home)
    for name in names:
        if not hasattr(module, name):
            problems.append(f"{old} has no {name}")
        elif getattr(module, name) is not getattr(real, name):
            problems.append(f"{old}.{name} is not {home}.{name}")
print(*problems, sep="\\n", end="")
"""


def problems(old: str, moved: dict[str, str], offered: str) -> list[str]:
    """Import ``old`` where nothing optional can be imported, and tell what is wrong with it."""
    names = {home: text.split() for home, text in moved.items()}
    question = json.dumps([old, names, offered.split(), OPTIONAL.split()])
    done = subprocess.run(
        [sys.executable, "-c", CHECK, question], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("old", sorted({*MOVED, *OFFERED}))
def test_an_old_path_offers_the_new_things(old: str) -> None:
    assert problems(old, MOVED.get(old, {}), OFFERED.get(old, "")) == []


def test_the_check_sees_what_is_missing_or_another() -> None:
    found = problems("os.path", {"posixpath": "join split nothing", "os": "getcwd"}, "join gone")

    assert found == ["os.path has no gone", "os.path has no nothing", "os.path has no getcwd"]
    assert problems("json", {"json.encoder": "JSONEncoder"}, "dumps") == []
    assert problems("math", {"cmath": "sqrt"}, "") == ["math.sqrt is not cmath.sqrt"]


def test_the_check_refuses_optional_packages() -> None:
    with pytest.raises(AssertionError, match="torch is optional, but was imported"):
        problems("torch", {}, "")
