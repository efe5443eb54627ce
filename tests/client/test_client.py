"""``ByzerLLM``: construction, setup, deployment, calls, lengths, and bad input."""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
import threading
import types
from collections.abc import AsyncIterator
from typing import Any

import pytest

import byzerllm
from byzerllm import ByzerLLM, errors
from byzerllm.client import default_chat_wrapper, parallel
from byzerllm.errors import (
    CallAborted,
    CallTimeout,
    ConfigError,
    DeployError,
    LengthError,
    ModelExists,
    ModelNotFound,
    NotYet,
    Overloaded,
    ProviderError,
    ProviderUnreachable,
    Unsupported,
)
from byzerllm.events import BeforeModel
from byzerllm.templates import Templates
from byzerllm.testing import ScriptedModel, llm_for
from byzerllm.types import InferBackend, LLMHistoryItem, LLMRequest, LLMResponse
from byzerllm.types.engine import Engine, StreamItem
from byzerllm.types.records import Generate, Reply
from byzerllm.types.sampling import Sampling

ASK = [{"role": "user", "content": "to be or not"}]


def make(script: Any = "one two three", **options: Any) -> tuple[ByzerLLM, ScriptedModel]:
    model = ScriptedModel(script, **options)
    return llm_for(model), model


def name_of(llm: ByzerLLM) -> str:
    return llm.default_model_name or ""


# -- construction and setup -------------------------------------------------------------------


def test_a_new_client_has_the_known_defaults() -> None:
    llm = ByzerLLM()
    assert llm.sys_conf == {
        "pythonMode": "ray",
        "maxConcurrency": 1,
        "num_gpus": 1,
        "masterMaxConcurrency": 1000,
        "workerMaxConcurrency": 1,
        "infer_backend": "transformers",
    }
    assert llm.default_sys_conf == llm.sys_conf
    names = ["url", "default_model_name", "default_emb_model_name", "default_rerank_model_name"]
    assert [getattr(llm, name) for name in [*names, "pin_model_worker_mapping"]] == [None] * 5
    assert llm.default_role_mapping["user_role"] == "User:"
    assert llm.default_role_mapping["assistant_role"] == "Assistant:"
    assert llm.default_max_output_length == 1024
    assert llm.mapping_role_mapping == {}


def test_keywords_are_taken_and_unknown_ones_refused() -> None:
    llm = ByzerLLM(
        verbose=True,
        force_skip_context_length_check=True,
        byzer_engine_url="http://127.0.0.1:9003",
        default_max_output_length=7,
    )
    assert llm.verbose
    assert llm.force_skip_context_length_check
    assert llm.get_max_output_length("any") == 7
    with pytest.raises(TypeError, match="colour"):
        ByzerLLM(colour="red")  # type: ignore[call-arg]


def test_clusters_say_that_they_come_later() -> None:
    with pytest.raises(NotYet, match="later release"):
        ByzerLLM(url="ray://127.0.0.1:10001").is_model_exist("any")
    with pytest.raises(NotYet, match="later release"):
        byzerllm.connect_cluster()


def test_ray_that_is_initialised_here_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = types.ModuleType("ray")
    ray.is_initialized = lambda: True  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(NotYet, match="Ray is initialised"):
        ByzerLLM().is_model_exist("any")
    ray.is_initialized = lambda: False  # type: ignore[attr-defined]
    assert not ByzerLLM().is_model_exist("any")


def test_every_setup_returns_the_client() -> None:
    llm, _ = make()
    name, text = name_of(llm), str
    calls: dict[str, tuple[Any, ...]] = {
        "setup": ("num_cpus", 2),
        "setup_infer_backend": (InferBackend.VLLM,),
        "setup_gpus_per_worker": (0,),
        "setup_cpus_per_worker": (0.5,),
        "setup_num_workers": (2,),
        "setup_worker_concurrency": (3,),
        "setup_load_balance_way": ("round_robin",),
        "setup_pin_model_worker_mapping": ({"embedding": 0},),
        "setup_default_model_name": (name,),
        "setup_default_emb_model_name": (name,),
        "setup_default_re_rank_model_name": (name,),
        "setup_max_model_length": (name, 10),
        "setup_max_input_length": (name, 10),
        "setup_max_output_length": (name, 10),
        "setup_role_mapping": (name, {}),
        "setup_extra_generation_params": (name, {}),
        "setup_fallback_models": (name, []),
        "setup_max_retries": (name, 1),
        "setup_function_calling_format_func": (name, text),
        "setup_response_class_format_func": (name, text),
        "setup_response_class_format_after_chat_func": (name, text),
        "setup_impl_func_format_func": (name, text),
        "setup_sys_function_calling_format_func": (name, text),
        "setup_sys_response_class_format_func": (name, text),
        "setup_sys_response_class_format_after_chat_func": (name, text),
        "setup_sys_impl_func_format_func": (name, text),
        "setup_base_system_messages": (name, "Be kind."),
        "setup_template": (name, Templates.qwen()),
        "setup_reset": (),
    }
    public = {method for method in dir(llm) if method.startswith("setup")}
    assert public == set(calls)
    for method, arguments in calls.items():
        assert getattr(llm, method)(*arguments) is llm, method


@pytest.mark.parametrize(
    ("backend", "numbers"),
    [
        (InferBackend.VLLM, (1000, 100)),
        (InferBackend.DeepSpeed, (1000, 100)),
        (InferBackend.Transformers, (1000, 1)),
        (InferBackend.LLAMA_CPP, (1000, 8)),
    ],
)
def test_a_backend_sets_both_concurrencies_whatever_was_set(
    backend: str, numbers: tuple[int, int]
) -> None:
    llm = ByzerLLM().setup_worker_concurrency(77).setup_infer_backend(backend)
    conf = llm.sys_conf
    assert (conf["masterMaxConcurrency"], conf["workerMaxConcurrency"]) == numbers
    assert conf["infer_backend"] == backend


def test_reset_puts_the_defaults_back() -> None:
    llm = ByzerLLM().setup_infer_backend(InferBackend.VLLM).setup("num_gpus", 8)
    assert llm.setup_reset().sys_conf == ByzerLLM().sys_conf


@pytest.mark.parametrize(
    "call",
    [
        lambda llm: llm.setup_infer_backend("abacus"),
        lambda llm: llm.setup_load_balance_way("dice"),
        lambda llm: llm.setup_pin_model_worker_mapping({"dreams": 0}),
        lambda llm: llm.setup_pin_model_worker_mapping({"meta": "zero"}),
        lambda llm: llm.setup_num_workers(0),
        lambda llm: llm.setup_template("x", "no such template"),
    ],
)
def test_unknown_settings_are_refused(call: Any) -> None:
    with pytest.raises(ValueError, match=r"choose|known|at least|There is no|index"):
        call(ByzerLLM())


def test_lengths_are_remembered_for_each_model() -> None:
    llm = ByzerLLM()
    assert (llm.get_max_model_length("m"), llm.get_max_input_length("m")) == (None, None)
    assert llm.get_max_output_length("m") == 1024
    llm.setup_max_model_length("m", 30).setup_max_input_length("m", 20)
    llm.setup_max_output_length("m", 10)
    assert llm.get_max_model_length("m") == 30
    assert llm.get_max_input_length("m") == 20
    assert llm.get_max_output_length("m") == 10
    assert llm.get_max_output_length("other") == 1024


def test_the_mapping_attributes_read_and_write_the_settings() -> None:
    llm = ByzerLLM().setup_max_output_length("m", 10)
    assert dict(llm.mapping_max_output_length) == {"m": 10}
    llm.mapping_max_output_length["n"] = 20
    assert llm.get_max_output_length("n") == 20
    del llm.mapping_max_output_length["m"]
    assert "m" not in llm.mapping_max_output_length
    assert llm.get_max_output_length("m") == 1024
    with pytest.raises(KeyError):
        llm.mapping_clean_func["m"]


def test_extra_generation_params_merge_and_the_new_one_wins() -> None:
    llm, model = make()
    llm.setup_extra_generation_params(name_of(llm), {"top_k": 1, "seed": 1})
    llm.setup_extra_generation_params(name_of(llm), {"top_k": 2})
    llm.chat_oai(ASK)
    assert model.settings[0].values == {"top_k": 2, "seed": 1, "max_tokens": 1024}


# -- deployment -------------------------------------------------------------------------------


def test_a_deployment_is_shared_by_all_clients_of_the_process() -> None:
    llm = ByzerLLM()
    meta = llm.deploy("", ScriptedModel("hi"), "shared")
    try:
        assert meta["backend"] == "scripted"
        assert llm.sys_conf["UDF_CLIENT"] == "shared"
        other = ByzerLLM()
        assert other.is_model_exist("shared")
        assert other.chat_oai(ASK, model="shared")[0].output == "hi"
    finally:
        llm.undeploy("shared")
    assert not llm.is_model_exist("shared")
    llm.undeploy("shared")  # no error


def test_an_existing_name_is_refused_unless_it_is_to_be_replaced() -> None:
    llm, first = make("first")
    name = name_of(llm)
    with pytest.raises(ModelExists, match="replace=True"):
        llm.deploy("", ScriptedModel("second"), name)
    assert llm.chat_oai(ASK)[0].output == "first"
    llm.deploy("", ScriptedModel("second", meta={"model_name": "new"}), name, replace=True)
    assert llm.chat_oai(ASK)[0].output == "second"
    assert first.closed
    assert llm.get_meta(name)["model_name"] == "new"


def test_meta_is_kept_and_dropped_when_the_model_changes_even_by_another_client() -> None:
    llm, _ = make("first")
    name = name_of(llm)
    assert llm.get_meta("")["model_name"] == "scripted"
    assert llm.meta_cache[name]["model_name"] == "scripted"
    ByzerLLM().deploy("", ScriptedModel("x", meta={"model_name": "new"}), name, replace=True)
    assert llm.get_meta("")["model_name"] == "new"


def test_deploying_keeps_the_output_length_of_the_user() -> None:
    llm = ByzerLLM().setup_max_output_length("kept", 77)
    llm.deploy("", ScriptedModel(), "kept")
    llm.undeploy("kept")
    assert llm.get_max_output_length("kept") == 77


class Broken(ScriptedModel):
    """Does not come up."""

    async def load(self) -> None:
        raise OSError("no such weights")


def test_a_model_that_does_not_come_up_is_a_failed_deployment_with_the_cause() -> None:
    llm, model = ByzerLLM(), Broken()
    with pytest.raises(DeployError, match="no such weights"):
        llm.deploy("", model, "broken")
    assert not llm.is_model_exist("broken")
    assert model.closed


@pytest.mark.parametrize(
    ("model_type", "said"),
    [
        ("custom/no_such_type", "no_such_type"),
        ("no_such_type", "no_such_type"),
        ("saas/no_such_vendor", "no_such_vendor"),
        ("saas/../../etc", "There is no model type"),
        ("", "type of model"),
        (7, "type of model"),
        ("errors", "init_model"),
    ],
)
def test_an_unknown_model_type_is_named(model_type: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ByzerLLM().deploy("", model_type, "unknown")


@pytest.mark.parametrize("backend", [InferBackend.VLLM, InferBackend.DeepSpeed])
def test_vllm_and_deepspeed_need_custom_auto(backend: str) -> None:
    llm = ByzerLLM().setup_infer_backend(backend)
    with pytest.raises(ValueError, match="custom/auto"):
        llm.deploy("/models/x", "custom/llama2", "x")
    with pytest.raises(NotYet, match="later release"):
        llm.deploy("/models/x", "custom/auto", "x")


def test_a_path_that_is_no_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="model_path is empty"):
        ByzerLLM().deploy("", "custom/auto", "x")
    with pytest.raises(ConfigError, match="does not exist"):
        ByzerLLM().deploy("/no/such.gguf", "custom/auto", "x")


def test_gpus_are_a_wish_unless_they_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = ByzerLLM()
    llm.deploy("", ScriptedModel(), "wish")
    llm.undeploy("wish")
    with pytest.raises(ConfigError, match="GPUs"):
        llm.setup_gpus_per_worker(64).deploy("", ScriptedModel(), "demand")


@pytest.mark.parametrize(
    "call",
    [
        lambda llm: llm.chat_oai(ASK, model="nobody"),
        lambda llm: llm.chat("nobody", "x"),
        lambda llm: list(llm.stream_chat_oai(ASK, model="nobody")),
        lambda llm: llm.emb("nobody", "x"),
        lambda llm: llm.emb_rerank("nobody", ("a", "b")),
        lambda llm: llm.tokenize("nobody", "x"),
        lambda llm: llm.get_meta("nobody"),
        lambda llm: llm._query("nobody", [{"instruction": "x"}]),
        lambda llm: llm.abort("id", "nobody"),
    ],
)
def test_an_unknown_model_says_what_is_deployed(call: Any) -> None:
    llm, _ = make()
    with pytest.raises(ModelNotFound, match=rf"'nobody'.*{name_of(llm)}"):
        call(llm)


@pytest.mark.parametrize(
    "call",
    [
        lambda llm: llm.chat_oai(ASK),
        lambda llm: llm.chat("", "x"),
        lambda llm: llm.stream_chat_oai(ASK),
        lambda llm: llm.async_stream_chat_oai(ASK),
        lambda llm: llm.emb("", "x"),
        lambda llm: llm.emb_query("x"),
        lambda llm: llm.emb_rerank(None, ("a", "b")),
        lambda llm: llm.tokenize(None, "x"),
        lambda llm: llm.apply_chat_template(None, "[]"),
        lambda llm: llm.get_meta(""),
        lambda llm: llm.abort("id"),
    ],
)
def test_no_model_at_all_says_what_to_set(call: Any) -> None:
    with pytest.raises(ConfigError, match=r"setup_default_\w*model_name"):
        call(ByzerLLM())


# -- chat_oai ---------------------------------------------------------------------------------


def test_a_text_is_one_user_message() -> None:
    llm, model = make()
    assert llm.chat_oai("hi")[0].output == "one two three"
    assert model.requests[0].messages == [{"role": "user", "content": "hi"}]


def test_messages_arrive_as_they_are_but_for_their_metadata() -> None:
    llm, model = make()
    parts = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "x"}}]
    conversation = [
        {"role": "system", "content": "S", "metadata": {"code": 0}},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "The answer is"},
    ]
    before = json.dumps(conversation)
    response = llm.chat_oai(conversation)[0]
    assert model.requests[0].messages == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "The answer is"},  # a prefix to continue
    ]
    assert json.dumps(conversation) == before
    assert isinstance(response.input, dict)
    assert response.input["instruction"] == "The answer is"
    assert response.input["message"] == {"role": "assistant"}


def test_history_items_are_messages_too() -> None:
    llm, model = make()
    llm.chat_oai([LLMHistoryItem("user", "hi")])
    assert model.requests[0].messages == [{"role": "user", "content": "hi"}]


def test_a_response_tells_what_is_known() -> None:
    llm, _ = make()
    response = llm.chat_oai(ASK, llm_config={"temperature": 0.5})[0]
    assert response.input == {"instruction": "to be or not", "history": [], "temperature": 0.5}
    metadata = response.metadata
    assert metadata["input_tokens_count"] == 4
    assert metadata["generated_tokens_count"] == 3
    assert metadata["finish_reason"] == "stop"
    assert 0 < metadata["first_token_time"] <= metadata["time_cost"] < 5


def test_a_text_format_model_gets_one_text() -> None:
    llm, model = make(message_format=False)
    conversation = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    llm.chat_oai(conversation)
    assert model.requests[0].prompt == "S\nUser:U\nAssistant:"
    llm.setup_template(name_of(llm), Templates.qwen())
    llm.chat_oai(conversation)
    assert model.requests[1].prompt == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    )
    assert model.settings[1].values["stop_token_ids"] == [151643, 151645]
    llm.chat_oai(conversation, role_mapping={"user_role": "Q:", "assistant_role": "A:"})
    assert model.requests[2].prompt == "S\nQ:U\nA:"


def test_the_models_own_template_is_used_on_request() -> None:
    llm, model = make(message_format=False)
    assert llm.setup_template(name_of(llm), "auto") is llm
    llm.chat_oai([{"role": "user", "content": "U"}])
    assert model.requests[0].prompt == "<user>U\n<assistant>"
    llm.chat(None, "U")
    assert model.requests[1].prompt == "<user>U\n<assistant>"
    assert llm.generate_instruction_from_history(name_of(llm), "U") == "<user>U\n<assistant>"


def test_auto_leaves_message_models_alone_and_refuses_models_without_a_template() -> None:
    llm, _ = make()
    llm.setup_template(name_of(llm), "auto")
    assert dict(llm.mapping_auto_use_apply_chat_template) == {}
    llm, _ = make(message_format=False, meta={"support_chat_template": False})
    with pytest.raises(ConfigError, match="carries no chat template"):
        llm.setup_template(name_of(llm), "auto")
    qwen = {"support_chat_template": False, "architectures": ["QWenLMHeadModel"]}
    llm, _ = make(message_format=False, meta=qwen)
    llm.setup_template(name_of(llm), "auto")
    assert llm.mapping_role_mapping[name_of(llm)]["user_role"].startswith("<|im_start|>")


def test_a_template_may_be_named() -> None:
    llm, model = make(message_format=False)
    llm.setup_template(name_of(llm), "empty").chat_oai("just this")
    assert model.requests[0].prompt == "just this"


def test_generate_instruction_from_history_uses_the_plain_words_by_default() -> None:
    llm, _ = make(message_format=False)
    conversation = [{"role": "user", "content": "U"}]
    name = name_of(llm)
    assert llm.generate_instruction_from_history(name, conversation) == "User:U\nAssistant:"
    mapping = {"user_role": "Q:", "assistant_role": ""}
    assert llm.generate_instruction_from_history(name, conversation, mapping) == "Q:U"


def test_the_clean_function_cleans() -> None:
    llm, _ = make("Rome<|im_end|>and more")
    llm.setup_template(name_of(llm), Templates.qwen())
    assert llm.chat_oai(ASK)[0].output == "Rome"
    assert llm.chat(None, "x")[0].output == "Rome"


def test_the_request_can_be_had_without_calling() -> None:
    llm, model = make()
    (response,) = llm.chat_oai(ASK, only_return_prompt=True)
    assert response.input == {"instruction": "to be or not", "history": []}
    assert model.requests == []


def test_default_chat_wrapper_is_chat_oai() -> None:
    llm, _ = make()
    assert default_chat_wrapper(llm, ASK)[0].output == "one two three"


@pytest.mark.parametrize(
    "arguments",
    [
        {"tools": [print]},
        {"tool_choice": print},
        {"execute_tool": True},
        {"response_class": dict},
        {"impl_func": print, "response_class": dict},
        {"enable_default_sys_message": True},
    ],
)
def test_what_comes_later_says_so(arguments: Any) -> None:
    llm, model = make()
    with pytest.raises(NotYet, match="later release"):
        llm.chat_oai(ASK, **arguments)
    with pytest.raises(NotYet, match="later release"):
        asyncio.run(llm.async_chat_oai(ASK, **arguments))
    assert model.requests == []


def test_arguments_that_exclude_each_other_are_refused() -> None:
    llm, _ = make()
    with pytest.raises(ConfigError, match="do not go together"):
        llm.chat_oai(ASK, tools=[print], response_class=dict)
    with pytest.raises(ConfigError, match="needs a response_class"):
        llm.chat_oai(ASK, impl_func=print)


@pytest.mark.parametrize(
    ("conversation", "said"),
    [
        ([], "empty"),
        (None, "empty"),
        ({"role": "user", "content": "x"}, "is a dict"),
        (5, "is a int"),
        ("", None),
        (["text"], "a dictionary"),
        ([{"content": "x"}], "role None"),
        ([{"role": "wizard", "content": "x"}], "'wizard'"),
        ([{"role": "user", "content": 7}], "is a int"),
        ([{"role": "user"}], "NoneType"),
        ([{"role": "user", "content": [{"type": "text", "text": b"x"}]}], "bytes"),
        ([{"role": "user", "content": [{"type": "text", "text": {1, 2}}]}], "set"),
    ],
)
def test_a_bad_conversation_is_named(conversation: Any, said: str | None) -> None:
    llm, model = make()
    if said is None:
        assert llm.chat_oai(conversation)[0].output
        return
    with pytest.raises(ConfigError, match=said):
        llm.chat_oai(conversation)
    with pytest.raises(ConfigError, match=said):
        list(llm.stream_chat_oai(conversation))
    assert model.requests == []


# -- settings of a call -----------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["generation.", "gen.", ""])
def test_settings_may_be_prefixed_and_texts(prefix: str) -> None:
    llm, model = make()
    config = {
        f"{prefix}top_k": "5",
        f"{prefix}temperature": "0.25",
        f"{prefix}stop": '["a", "b"]',
        f"{prefix}stop_token_ids": "1,2",
        f"{prefix}max_length": "9",
        f"{prefix}ignore_eos": "false",
    }
    llm.chat_oai(ASK, llm_config=config)
    assert model.settings[0].values == {
        "top_k": 5,
        "temperature": 0.25,
        "stop": ["a", "b"],
        "stop_token_ids": [1, 2],
        "max_tokens": 9,
        "ignore_eos": False,
    }


@pytest.mark.parametrize(
    "config",
    [{"temperature": "hot"}, {"max_length": -1}, {"gen.top_k": "many"}, {"timeout_s": "soon"}],
)
def test_a_setting_that_cannot_be_is_named(config: dict[str, Any]) -> None:
    llm, _ = make()
    with pytest.raises(ValueError, match=next(iter(config)).replace("gen.", "")):
        llm.chat_oai(ASK, llm_config=config)


def test_a_setting_that_is_no_json_is_refused() -> None:
    llm, _ = make()
    with pytest.raises(ConfigError, match=r"gen.schema\['x'\] is a object"):
        llm.chat_oai(ASK, llm_config={"gen.schema": {"x": object()}})


class Strict(ScriptedModel):
    """Knows one setting."""

    accepts = frozenset({"max_tokens", "temperature"})


def test_a_setting_the_engine_does_not_know_is_refused_after_the_callbacks() -> None:
    llm = llm_for(Strict("x"))
    llm.chat_oai(ASK, llm_config={"temperature": 0.1, "human_as_model": True})
    with pytest.raises(Unsupported, match=r"'top_k'.*temperature"):
        llm.chat_oai(ASK, llm_config={"top_k": 3})


def test_the_output_budget_has_its_order() -> None:
    llm, model = make()
    name = name_of(llm)
    budgets = []

    def ask(**config: Any) -> None:
        llm.chat_oai(ASK, llm_config=config)
        budgets.append(model.settings[-1].max_tokens)

    ask()
    llm.setup_max_output_length(name, 100)
    ask()
    llm.setup_extra_generation_params(name, {"max_length": 50})
    ask()
    ask(max_length=70)
    assert budgets == [1024, 100, 50, 70]
    llm.mapping_extra_generation_params.clear()
    llm.chat(name, LLMRequest("x", max_length=60))
    llm.chat(name, LLMRequest("x", max_length=600))
    assert [setting.max_tokens for setting in model.settings[-2:]] == [60, 100]


def test_an_answer_can_be_made_to_begin_with_a_text() -> None:
    llm, _ = make("world")
    output = llm.chat_oai(ASK, llm_config={"gen.response_prefix": "hello "})[0].output
    assert output == "hello world"


# -- chat, vectors, tokens --------------------------------------------------------------------


def test_chat_sends_the_bare_instruction_to_message_models() -> None:
    llm, model = make()
    request = LLMRequest("hi", max_length=9, top_p=0.5, temperature=0.2)
    (response,) = llm.chat(name_of(llm), request, {"temperature": 0.4})
    assert model.requests[0].messages == [{"role": "user", "content": "hi"}]
    assert response.input == {
        "instruction": "hi",
        "max_length": 9,
        "top_p": 0.5,
        "temperature": 0.4,
    }


def test_chat_puts_the_system_message_before_text_models() -> None:
    llm, model = make(message_format=False)
    llm.chat(None, "U")
    system = llm.default_role_mapping["system_msg"]
    assert model.requests[0].prompt == f"{system}\nUser:U\nAssistant:"


def test_a_list_of_instructions_gives_a_response_each_in_order() -> None:
    llm, model = make(lambda request: request.text.upper(), delay=0.01)
    responses = llm.chat(None, LLMRequest(["a", "b", "c"]))
    assert [response.output for response in responses] == ["A", "B", "C"]
    assert len(model.requests) == 3


@pytest.mark.parametrize("request_", [7, LLMRequest([]), LLMRequest([1])])  # type: ignore[list-item]
def test_chat_refuses_what_is_no_instruction(request_: Any) -> None:
    llm, _ = make()
    with pytest.raises(ConfigError):
        llm.chat(None, request_)


@pytest.mark.parametrize("texts", ["a", ["a"], ["a", "b"], LLMRequest("a"), LLMRequest(["a", "b"])])
def test_emb_gives_one_vector_per_text(texts: Any) -> None:
    llm, _ = make()
    responses = llm.emb(None, texts)
    assert len(responses) == (2 if "'b'" in str(texts) else 1)
    assert responses[0].output == llm.emb_query("a")[0].output
    assert isinstance(responses[0].input, dict)
    assert responses[0].input["embedding"] is True
    assert all(isinstance(number, float) for number in responses[0].output)


def test_emb_sends_no_sampling_settings() -> None:
    llm, _model = make()
    llm.setup_extra_generation_params(name_of(llm), {"top_k": 1})
    assert llm.emb(None, "a", {"dimensions": 4})[0].input == {
        "instruction": "a",
        "embedding": True,
        "dimensions": 4,
    }


def test_rerank_gives_the_best_first_and_where_it_was() -> None:
    llm, _ = make()
    pairs = [("a b", "x"), ("a b", "a b c"), ("a b", "a")]
    (response,) = llm.emb_rerank(sentence_pairs=pairs)
    assert [list(row) for row in response.output] == [
        [("a b", "a b c"), 1.0],
        [("a b", "a"), 0.5],
        [("a b", "x"), 0.0],
    ]
    assert response.metadata["indices"] == [1, 2, 0]
    (single,) = llm.emb_rerank(sentence_pairs=("a", "a"))
    assert single.output == [[("a", "a"), 1.0]]


@pytest.mark.parametrize("pairs", [None, [], [("a",)], ["ab"], [("a", 1)], "ab"])
def test_rerank_refuses_what_are_no_pairs(pairs: Any) -> None:
    llm, _ = make()
    with pytest.raises(ConfigError, match="pair"):
        llm.emb_rerank(sentence_pairs=pairs)


def test_tokenize_and_the_chat_template() -> None:
    llm, _ = make()
    (response,) = llm.tokenize("", "a b c")
    assert len(response.output[0]) == 3
    assert llm.apply_chat_template("", json.dumps(ASK)) == "<user>to be or not\n<assistant>"
    with pytest.raises(ConfigError, match="JSON"):
        llm.apply_chat_template("", "not json")


# -- lengths ----------------------------------------------------------------------------------


def test_a_request_that_is_too_long_is_refused_with_the_numbers() -> None:
    llm, model = make()
    name = name_of(llm)
    llm.setup_max_input_length(name, 3)
    with pytest.raises(LengthError, match=r"4 tokens.* 3 "):
        llm.chat_oai(ASK)
    with pytest.raises(LengthError):
        list(llm.stream_chat_oai(ASK))
    llm.setup_max_input_length(name, None).setup_max_model_length(name, 20)
    with pytest.raises(LengthError, match=r"4 tokens.*1024.* 20 "):
        llm.chat_oai(ASK)
    assert model.requests == []
    assert llm.chat_oai(ASK, llm_config={"max_length": 16})[0].output
    with pytest.raises(LengthError, match=r"4 tokens.*17.* 20 "):
        llm.chat_oai(ASK, llm_config={"max_length": 17})


class NoTokens(ScriptedModel):
    """Cannot count tokens."""

    async def tokenize(self, text: str) -> list[int]:
        return await Engine.tokenize(self, text)


def test_a_limit_that_cannot_be_checked_is_an_error_that_says_how_to_skip_it() -> None:
    llm = llm_for(NoTokens("x"))
    name = name_of(llm)
    assert llm.chat_oai(ASK)[0].output == "x"  # nothing is limited
    llm.setup_max_input_length(name, 3)
    with pytest.raises(LengthError, match="force_skip_context_length_check"):
        llm.chat_oai(ASK)
    free = ByzerLLM(force_skip_context_length_check=True).setup_default_model_name(name)
    assert free.setup_max_input_length(name, 3).chat_oai(ASK)[0].output == "x"


# -- streams ----------------------------------------------------------------------------------


def test_a_stream_is_cumulative_by_default() -> None:
    llm, _ = make()
    pairs = list(llm.stream_chat_oai(ASK))
    assert [text for text, _ in pairs] == ["one ", "one two ", "one two three"]
    meta = pairs[-1][1]
    assert (meta.input_tokens_count, meta.generated_tokens_count) == (4, 3)
    assert meta.finish_reason == "stop"


def test_delta_mode_gives_only_what_is_new() -> None:
    llm, _ = make()
    pairs = list(llm.stream_chat_oai(ASK, delta_mode=True))
    assert "".join(text for text, _ in pairs) == "one two three"
    assert pairs[0][0] == "one "
    assert pairs[-1][1].finish_reason == "stop"


def test_async_streams_are_the_same() -> None:
    llm, model = make()

    async def read(**options: Any) -> list[str]:
        return [text async for text, _ in llm.async_stream_chat_oai(ASK, **options)]

    assert asyncio.run(read()) == ["one ", "one two ", "one two three"]
    assert "".join(asyncio.run(read(delta_mode=True))) == "one two three"
    assert model.settings[0].stream


def test_a_half_received_marker_is_never_shown() -> None:
    pieces = ["Ro", "me", "<|im", "_end|>", "more"]
    llm, _ = make([pieces, pieces])
    llm.setup_template(name_of(llm), Templates.qwen())
    assert [text for text, _ in llm.stream_chat_oai(ASK)] == ["Ro", "Rome"]
    deltas = [text for text, _ in llm.stream_chat_oai(ASK, delta_mode=True)]
    assert "".join(deltas) == "Rome"


def test_deltas_join_to_the_cleaned_text_whatever_cleans_it() -> None:
    text = "  " + "word " * 40
    llm, _ = make([text, text])
    llm.mapping_clean_func[name_of(llm)] = str.strip
    deltas = [text for text, _ in llm.stream_chat_oai(ASK, delta_mode=True)]
    assert "".join(deltas) == text.strip()
    assert len(deltas) > 10  # it still streams
    assert list(llm.stream_chat_oai(ASK))[-1][0] == text.strip()


def test_reasoning_streams_beside_the_text() -> None:
    llm, _ = make(Reply("42", reasoning="six by nine"))
    pairs = list(llm.stream_chat_oai(ASK, delta_mode=True))
    assert "".join(meta.reasoning_content for _, meta in pairs) == "six by nine"
    assert list(llm.stream_chat_oai(ASK))[-1][1].reasoning_content == "six by nine"
    assert llm.chat_oai(ASK)[0].metadata["reasoning_content"] == "six by nine"


def test_an_empty_answer_is_one_empty_text() -> None:
    llm, _ = make([[], []])
    assert [text for text, _ in llm.stream_chat_oai(ASK)] == [""]


def test_a_model_that_cannot_stream_says_so() -> None:
    llm, _ = make(meta={"support_stream": False})
    with pytest.raises(Unsupported, match="cannot stream"):
        list(llm.stream_chat_oai(ASK))


def test_a_failure_in_the_middle_reaches_the_reader_after_what_was_read() -> None:
    class Fails(ScriptedModel):
        async def stream(self, request: Generate, sampling: Sampling) -> AsyncIterator[StreamItem]:
            async for chunk in super().stream(request, sampling):
                yield chunk
                raise ProviderError("broke in the middle", status=503)

    llm = llm_for(Fails("one two"))
    texts = []
    stream = llm.stream_chat_oai(ASK)
    texts.append(next(stream)[0])
    with pytest.raises(ProviderError, match="broke in the middle"):
        next(stream)
    assert texts == ["one "]


# -- ends -------------------------------------------------------------------------------------


def test_a_deadline_ends_the_call_and_frees_the_slot() -> None:
    llm, model = make("slow " * 100, delay=0.01, concurrency=1)
    with pytest.raises(CallTimeout, match=r"0.05 s"):
        llm.chat_oai(ASK, llm_config={"timeout_s": 0.05})
    with pytest.raises(CallTimeout):
        list(llm.stream_chat_oai(ASK, llm_config={"gen.timeout_s": 0.05}))
    assert model.running == 0
    assert llm.chat_oai(ASK, llm_config={"max_length": 1})[0].output == "slow "


def test_abort_ends_a_call_by_its_id() -> None:
    llm, model = make("slow " * 1000, delay=0.01)
    started = threading.Event()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in llm.stream_chat_oai(ASK, llm_config={"gen.request_id": "r1"}):
                started.set()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert started.wait(5)
    assert llm.abort("r1") is True
    thread.join(5)
    assert isinstance(failures[0], CallAborted)
    assert model.running == 0
    assert llm.abort("r1") is False


def test_undeploying_ends_running_calls() -> None:
    llm, model = make("slow " * 1000, delay=0.01)
    stream = llm.stream_chat_oai(ASK)
    next(stream)
    llm.undeploy(name_of(llm))
    with pytest.raises(CallAborted, match="undeployed"):
        list(stream)
    assert model.running == 0


def test_an_async_callers_cancellation_stops_the_model() -> None:
    llm, model = make("slow " * 1000, delay=0.01)

    async def main() -> None:
        call = asyncio.ensure_future(llm.async_chat_oai(ASK))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert model.running == 0

    asyncio.run(main())


def test_a_full_model_says_so() -> None:
    llm = ByzerLLM().setup("masterMaxConcurrency", 1)
    model = ScriptedModel("slow " * 100, delay=0.01, concurrency=1)
    llm.deploy("", model, "small")
    llm.setup_default_model_name("small").setup_max_retries("small", 0)

    async def main() -> list[Any]:
        calls = [llm.async_chat_oai(ASK, llm_config={"timeout_s": 1}) for _ in range(3)]
        return await asyncio.gather(*calls, return_exceptions=True)

    try:
        outcomes = asyncio.run(main())
    finally:
        llm.undeploy("small")
    (full,) = [outcome for outcome in outcomes if isinstance(outcome, Overloaded)]
    assert full.retry_after


def test_another_model_steps_in_when_the_first_fails_for_good() -> None:
    llm, first = make(lambda request: ProviderError("down", status=400))
    llm.deploy("", ScriptedModel("from the second"), "stand-in")
    llm.setup_fallback_models(name_of(llm), ["stand-in"])
    try:
        assert llm.chat_oai(ASK)[0].output == "from the second"
        assert list(llm.stream_chat_oai(ASK))[-1][0] == "from the second"
    finally:
        llm.undeploy("stand-in")
    assert len(first.requests) == 2


def test_only_what_is_safe_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byzerllm.client.attempts.FIRST_PAUSE", 0.001)
    script: list[Any] = [ProviderUnreachable("gone"), ProviderError("busy", status=503), "fine"]
    llm, model = make(script)
    assert llm.chat_oai(ASK)[0].output == "fine"
    assert len(model.requests) == 3
    llm, model = make(lambda request: ProviderError("bad request", status=400))
    with pytest.raises(ProviderError, match="bad request"):
        llm.chat_oai(ASK)
    assert len(model.requests) == 1
    llm.setup_max_retries(name_of(llm), 0)


@pytest.mark.parametrize(("wait", "patience"), [(30, 1), (86400, 100_000)])
def test_a_wait_that_is_too_long_is_not_begun_and_the_reason_reaches_the_caller(
    wait: float, patience: float
) -> None:
    error = ProviderError("busy", status=429, retry_after=wait)
    llm, model = make(lambda request: error)
    with pytest.raises(ProviderError, match="busy"):
        llm.chat_oai(ASK, llm_config={"timeout_s": patience})
    assert len(model.requests) == 1


def test_errors_cross_processes_unchanged() -> None:
    made = [
        errors.ModelNotFound("m", ["a"]),
        errors.Overloaded("full", retry_after=3),
        errors.ProviderError("x", status=429, code="c", request_id="r", retry_after=2),
        errors.CallTimeout("late"),
        errors.ConfigError("bad"),
    ]
    for error in made:
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), back.args, back.__dict__) == (type(error), error.args, error.__dict__)


# -- the parallel helper ----------------------------------------------------------------------


def test_parallel_results_keep_their_order_and_leave_failures_out() -> None:
    llm, _ = make(["a", ProviderError("x", status=400), "c"])
    results = parallel.chat_oai(llm, workers=3, conversations=ASK)
    assert sorted(result[0].output for result in results) == ["a", "c"]


def test_when_all_fail_the_first_failure_is_raised() -> None:
    llm, _ = make(lambda request: ProviderError("all down", status=400))
    with pytest.raises(ProviderError, match="all down"):
        parallel.chat_oai(llm, conversations=ASK)
    with pytest.raises(ConfigError):
        parallel.chat_oai(llm, workers=0, conversations=ASK)


def test_the_single_result_is_the_first_that_holds_an_answer() -> None:
    empty, full = LLMResponse("", ""), LLMResponse("x", "")
    zero = types.SimpleNamespace(value=0)
    nothing = types.SimpleNamespace(value=None)
    calls = types.SimpleNamespace(values=[1])
    assert parallel.get_single_result([]) is None
    assert parallel.get_single_result([[], [empty], [full]]) == [full]
    assert parallel.get_single_result([[nothing], [zero]]) == [zero]
    assert parallel.get_single_result([[types.SimpleNamespace(values=[])], [calls]]) == [calls]


def test_verbose_prints_what_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    model = ScriptedModel("x")
    llm = llm_for(model, verbose=True)
    llm.chat_oai(ASK, llm_config={"api_key": "sk-1"})
    shown = capsys.readouterr().out
    assert "to be or not" in shown
    assert "sk-1" not in shown


def test_the_later_setting_wins_however_it_is_written() -> None:
    llm, model = make()
    extra = {"gen.temperature": 0.9, "gen.max_tokens": 900}
    llm.setup_extra_generation_params(name_of(llm), extra)
    llm.chat(None, "x", {"temperature": 0.2, "max_length": 5})
    assert model.settings[0].values["temperature"] == 0.2
    assert model.settings[0].max_tokens == 5


def test_the_meta_that_deploy_returns_is_the_callers_own() -> None:
    llm = ByzerLLM()
    meta = llm.deploy("", ScriptedModel("x"), "own-meta")
    meta["support_stream"] = False
    try:
        assert list(llm.stream_chat_oai(ASK, model="own-meta"))
    finally:
        llm.undeploy("own-meta")


def test_verbose_prints_what_is_sent_after_the_edits(capsys: pytest.CaptureFixture[str]) -> None:
    llm = llm_for(ScriptedModel("x"), verbose=True)

    @llm.on.before_model(role="edit")
    def edit(event: BeforeModel) -> BeforeModel:
        return BeforeModel(event.ctx, Generate(event.request.model, prompt="EDITED"))

    llm.chat_oai("ORIGINAL")
    shown = capsys.readouterr().out
    assert "EDITED" in shown
    assert "ORIGINAL" not in shown


def test_a_slow_reader_is_not_taken_for_a_slow_model() -> None:
    llm, _ = make()
    stream = llm.stream_chat_oai(ASK, llm_config={"timeout_s": 0.2})
    next(stream)
    threading.Event().wait(0.4)
    assert list(stream)[-1][0] == "one two three"

    async def read() -> list[str]:
        texts = []
        async for text, _ in llm.async_stream_chat_oai(ASK, llm_config={"timeout_s": 0.2}):
            texts.append(text)
            await asyncio.sleep(0.15)
        return texts

    assert asyncio.run(read())[-1] == "one two three"


@pytest.mark.parametrize(
    "call",
    [
        lambda llm: llm.chat_oai(ASK, llm_config="hot"),
        lambda llm: llm.stream_chat_oai(ASK, llm_config="hot"),
        lambda llm: llm.chat(None, "x", "hot"),
        lambda llm: llm.chat_oai(ASK, hooks=print),
        lambda llm: llm.tokenize("", None),
        lambda llm: llm.apply_chat_template("", "[1]"),
        lambda llm: llm.setup_template("m", 42),
        lambda llm: llm.setup_num_workers("many"),
        lambda llm: llm.setup_gpus_per_worker("many"),
        lambda llm: llm.setup_max_output_length("m", "long"),
    ],
)
def test_arguments_of_the_wrong_type_are_named(call: Any) -> None:
    llm, _ = make()
    with pytest.raises(ConfigError):
        call(llm)


def test_numbers_may_come_as_text() -> None:
    llm = ByzerLLM().setup_num_workers("2").setup_max_output_length("m", "10")  # type: ignore[arg-type]
    assert llm.sys_conf["maxConcurrency"] == 2
    assert llm.get_max_output_length("m") == 10


@pytest.mark.parametrize("name", ["prompt", "response", "impl", "sft", "apply_sql_func"])
def test_methods_that_come_later_say_so(name: str) -> None:
    with pytest.raises(NotYet, match=f"ByzerLLM.{name} comes with a later release"):
        getattr(ByzerLLM(), name)
    assert not hasattr(ByzerLLM(), name)


def test_a_piecewise_reader_gets_the_totals_in_the_last_pair_it_sees() -> None:
    llm, _ = make()
    stream = llm.stream_chat_oai(ASK, delta_mode=True)
    seen = [(meta.generated_tokens_count, meta.finish_reason) for _, meta in stream]
    assert seen[-1] == (3, "stop")
