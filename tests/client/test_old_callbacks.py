"""``add_event_callback``: the form of earlier releases, and the person in the model's place."""

from __future__ import annotations

import asyncio
import builtins
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from byzerllm import ByzerLLM
from byzerllm.client import parallel
from byzerllm.errors import CallDenied, ConfigError, HumanUnavailable
from byzerllm.events import BeforeModel
from byzerllm.human import ask_human
from byzerllm.human.show import masked
from byzerllm.testing import ScriptedModel, llm_for
from byzerllm.types import EventName, LLMRequest, SingleOutputMeta
from byzerllm.types.records import Generate
from byzerllm.utils.client import ask_human as ask_human_by_its_old_path

BEFORE, AFTER = EventName.BEFORE_CALL_MODEL, EventName.AFTER_CALL_MODEL
QUESTION = [{"role": "user", "content": "Name the capital of Germany."}]


def make(script: Any = "Berlin.") -> tuple[ByzerLLM, ScriptedModel]:
    model = ScriptedModel(script)
    return llm_for(model), model


def answering(value: Any) -> Any:
    return lambda llm, model, items: value


class Typist:
    """Replaces ``input``: types these lines, and keeps what it was asked."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)
        self.prompts: list[str] = []
        self.at_once = 0
        self.most_at_once = 0

    def __call__(self, prompt: str = "") -> str:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(0.005)  # long enough for a second question to come in between, if it could
        self.prompts.append(prompt)
        self.at_once -= 1
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)


@pytest.fixture
def typist(monkeypatch: pytest.MonkeyPatch) -> Typist:
    typist = Typist()
    monkeypatch.setattr(builtins, "input", typist)
    return typist


# -- what a callback may return ---------------------------------------------------------------


@pytest.mark.parametrize("verdict", [(True, None), None])
def test_going_on_changes_nothing(verdict: Any) -> None:
    llm, model = make()
    llm.add_event_callback(BEFORE, answering(verdict))
    assert llm.chat_oai(QUESTION)[0].output == "Berlin."
    assert model.requests[0].messages == QUESTION


def test_edits_in_place_count_and_leave_the_callers_messages_alone() -> None:
    llm, model = make()
    history = [{"role": "system", "content": "Be short."}, *QUESTION]

    def edit(llm: ByzerLLM, model: str, items: list[dict[str, Any]]) -> Any:
        items[0]["history"][0]["content"] = "Be long."
        items[0]["instruction"] += " Please."
        items[0]["temperature"] = 0.5
        return True, None

    llm.add_event_callback(BEFORE, edit)
    llm.chat_oai(history)
    assert model.requests[0].text == "Be long.\nName the capital of Germany. Please."
    assert model.settings[0].values["temperature"] == 0.5
    assert history[0]["content"] == "Be short."
    assert history[1]["content"] == "Name the capital of Germany."


def test_a_new_list_replaces_the_request_for_later_callbacks_and_the_call() -> None:
    llm, model = make()
    seen: list[Any] = []
    llm.add_event_callback(BEFORE, answering((True, [{"instruction": "new", "history": []}])))

    def look(llm: ByzerLLM, model: str, items: Any) -> Any:
        seen.append(items)

    llm.add_event_callback(BEFORE, look)
    llm.chat_oai(QUESTION)
    assert seen == [[{"instruction": "new", "history": []}]]
    assert model.requests[0].text == "new"


def test_an_answer_in_full_is_returned_as_it_is() -> None:
    llm, model = make()
    rows = [{"predict": "Bonn", "input": "anything", "metadata": {"mine": 1}}]
    llm.add_event_callback(BEFORE, answering((False, rows)))
    assert llm._query("", [{"instruction": "x"}]) is not None
    assert llm._query("", [{"instruction": "x"}])[0] is rows[0]
    response = llm.chat_oai(QUESTION)[0]
    assert (response.output, response.input, response.metadata) == ("Bonn", "anything", {"mine": 1})
    assert model.requests == []


@pytest.mark.parametrize("value", ["Bonn", ["Bonn"]])
def test_a_text_is_wrapped_into_a_result(value: Any) -> None:
    llm, _ = make()
    llm.add_event_callback(BEFORE, answering((False, value)))
    (row,) = llm._query("", [{"instruction": "x", "history": []}])
    assert row["predict"] == "Bonn"
    assert row["input"] == {"instruction": "x", "history": []}
    assert isinstance(row["metadata"], dict)


def test_the_first_answer_ends_the_line_of_callbacks() -> None:
    llm, _ = make()
    asked: list[str] = []
    llm.add_event_callback(BEFORE, lambda *_: asked.append("first") or (False, "one"))
    llm.add_event_callback(BEFORE, lambda *_: asked.append("second") or (False, "two"))
    assert llm.chat_oai(QUESTION)[0].output == "one"
    assert asked == ["first"]


def test_false_and_nothing_is_a_veto() -> None:
    llm, model = make()

    def veto(llm: ByzerLLM, model: str, items: Any) -> Any:
        return False, None

    llm.add_event_callback(BEFORE, veto)
    with pytest.raises(CallDenied, match="veto"):
        llm.chat_oai(QUESTION)
    assert model.requests == []


@pytest.mark.parametrize(
    "nonsense", [True, "text", 7, (True,), (True, None, None), ("yes", None), (False, 7), (True, 7)]
)
def test_nonsense_names_the_callback(nonsense: Any) -> None:
    llm, _ = make()

    def my_callback(llm: ByzerLLM, model: str, items: Any) -> Any:
        return nonsense

    llm.add_event_callback(BEFORE, my_callback)
    with pytest.raises(TypeError, match="my_callback"):
        llm.chat_oai(QUESTION)


def test_what_a_callback_raises_reaches_the_caller() -> None:
    llm, _ = make()

    class Break(Exception):
        pass

    def stop(*_: Any) -> Any:
        raise Break("stop here")

    llm.add_event_callback(BEFORE, stop)
    with pytest.raises(Break, match="stop here"):
        llm.chat_oai(QUESTION)
    with pytest.raises(Break, match="stop here"):
        list(llm.stream_chat_oai(QUESTION))


def test_after_sees_the_results_and_may_replace_them() -> None:
    llm, _ = make()
    seen: list[Any] = []

    def shout(llm: ByzerLLM, model: str, rows: list[dict[str, Any]]) -> Any:
        seen.extend(rows)
        return True, [{**row, "predict": row["predict"].upper()} for row in rows]

    llm.add_event_callback(AFTER, shout)
    assert llm.chat_oai(QUESTION)[0].output == "BERLIN."
    assert seen[0]["predict"] == "Berlin."
    assert seen[0]["input"]["instruction"] == "Name the capital of Germany."


def test_after_may_edit_in_place_answer_and_refuse() -> None:
    llm, _ = make()

    def edit(llm: ByzerLLM, model: str, rows: list[dict[str, Any]]) -> Any:
        rows[0]["predict"] = "edited"

    llm.add_event_callback(AFTER, edit)
    assert llm.chat_oai(QUESTION)[0].output == "edited"
    llm.remove_event_callback(AFTER, edit)
    llm.add_event_callback(AFTER, answering((False, "other")))
    assert llm.chat_oai(QUESTION)[0].output == "other"
    llm.add_event_callback(AFTER, answering((False, None)))
    assert llm.chat_oai(QUESTION)[0].output == "other"  # the first False ended the line


def test_after_sees_an_intercepted_reply_too() -> None:
    llm, _ = make()
    seen: list[Any] = []
    llm.add_event_callback(BEFORE, answering((False, "typed")))
    llm.add_event_callback(AFTER, lambda llm, model, rows: seen.extend(rows))
    llm.chat_oai(QUESTION)
    list(llm.stream_chat_oai(QUESTION))
    assert [row["predict"] for row in seen] == ["typed", "typed"]


def test_after_sees_the_whole_text_of_a_stream_once() -> None:
    llm, _ = make("one two three")
    seen: list[Any] = []
    llm.add_event_callback(AFTER, lambda llm, model, rows: seen.append(rows[0]["predict"]))
    list(llm.stream_chat_oai(QUESTION))
    assert seen == ["one two three"]


def test_callbacks_can_be_removed_and_listed() -> None:
    llm, _ = make()
    callback = answering((False, "typed"))
    assert llm.add_event_callback(BEFORE, callback) is llm
    assert llm.event_callbacks == {BEFORE: [callback], AFTER: []}
    assert llm.remove_event_callback(BEFORE, callback) is llm
    assert llm.event_callbacks == {BEFORE: [], AFTER: []}
    assert llm.chat_oai(QUESTION)[0].output == "Berlin."


def test_an_unknown_event_or_callback_is_refused() -> None:
    llm, _ = make()
    with pytest.raises(ConfigError, match="before_call_model"):
        llm.add_event_callback("before_call_model", answering(None))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not callable"):
        llm.add_event_callback(BEFORE, "callback")  # type: ignore[arg-type]


def test_start_up_requests_do_not_reach_callbacks_and_no_human_text_is_kept_as_meta(
    typist: Typist,
) -> None:
    llm, _ = make()
    llm.meta_cache.clear()
    llm.setup_max_input_length(llm.default_model_name or "", 100)
    llm.add_event_callback(BEFORE, ask_human)
    typist.lines = ["Bonn"]
    assert llm.chat_oai(QUESTION)[0].output == "Bonn"
    assert len(typist.prompts) == 1
    assert llm.get_meta("")["backend"] == "scripted"


def test_all_kinds_can_be_asked_for() -> None:
    llm, _ = make()
    seen: list[Any] = []
    llm.add_event_callback(BEFORE, lambda llm, model, items: seen.extend(items), kinds="all")
    llm.tokenize(None, "a b")
    llm.emb_query("a")
    llm.emb_rerank(sentence_pairs=("q", "p"))
    flags = [{key for key, value in item.items() if value is True} for item in seen]
    assert flags == [{"tokenizer"}, {"embedding"}, {"embedding", "embed_rerank"}]


def test_keys_for_callbacks_reach_them_and_not_the_engine() -> None:
    llm, model = make()
    seen: list[Any] = []
    llm.add_event_callback(BEFORE, lambda llm, model, items: seen.extend(items))
    llm.chat_oai(QUESTION, llm_config={"human_as_model": True, "hook.ticket": 7, "gen.top_k": 3})
    assert seen[0]["human_as_model"] is True
    assert seen[0]["hook.ticket"] == 7
    assert model.settings[0].values == {"top_k": 3, "max_tokens": 1024}


# -- the literal request ----------------------------------------------------------------------


def test_ask_human_shows_the_request_and_returns_the_persons_text(
    typist: Typist, capsys: pytest.CaptureFixture[str]
) -> None:
    llm, model = make()
    llm.add_event_callback(BEFORE, ask_human)
    typist.lines = ["  Bonn, of course \\o/ "]
    conversation = [{"role": "system", "content": "Be short."}, *QUESTION]
    response = llm.chat_oai(conversation, llm_config={"temperature": 0.3, "gen.top_k": 4})[0]
    assert response.output == "  Bonn, of course \\o/ "
    assert model.requests == []
    shown = capsys.readouterr().out
    for part in [
        f"model: {llm.default_model_name}",
        "instruction: Name the capital of Germany.",
        "system: Be short.",
        "temperature: 0.3",
        "gen.top_k: 4",
    ]:
        assert part in shown


def test_the_persons_text_is_the_result_of_query(typist: Typist) -> None:
    llm, _ = make()
    llm.add_event_callback(BEFORE, ask_human)
    typist.lines = ["one", "two"]
    rows = llm._query("", [{"instruction": "a"}, {"instruction": "b"}])
    assert [row["predict"] for row in rows] == ["one", "two"]
    assert [row["input"]["instruction"] for row in rows] == ["a", "b"]
    assert len(typist.prompts) == 2


def test_it_is_the_same_by_its_old_path() -> None:
    assert ask_human_by_its_old_path is ask_human


def test_it_answers_when_called_by_hand(typist: Typist) -> None:
    llm, _ = make()
    typist.lines = ["Bonn"]
    go_on, rows = ask_human(llm, "m", [{"instruction": "x"}])
    assert go_on is False
    assert rows[0]["predict"] == "Bonn"


@pytest.mark.parametrize("delta_mode", [False, True])
def test_a_person_answers_a_stream_in_one_piece(typist: Typist, delta_mode: bool) -> None:
    llm, _ = make()
    llm.add_event_callback(BEFORE, ask_human)
    typist.lines = ["Bonn", "Bonn"]
    pairs = list(llm.stream_chat_oai(QUESTION, delta_mode=delta_mode))
    assert [text for text, _ in pairs] == ["Bonn"]
    assert pairs[0][1].extra_info["by"] == "human"
    assert all(isinstance(meta, SingleOutputMeta) for _, meta in pairs)

    async def read() -> list[Any]:
        return [p async for p in llm.async_stream_chat_oai(QUESTION, delta_mode=delta_mode)]

    assert [text for text, _ in asyncio.run(read()) if text] == ["Bonn"]
    assert len(typist.prompts) == 2


def test_a_person_answers_async_calls_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    llm, _ = make()
    llm.add_event_callback(BEFORE, ask_human)
    loop_runs = threading.Event()
    threads: list[str] = []

    def typed(prompt: str = "") -> str:
        threads.append(threading.current_thread().name)
        assert loop_runs.wait(5), "the event loop stood still while the person thought"
        return "Bonn"

    monkeypatch.setattr(builtins, "input", typed)

    async def main() -> str:
        call = asyncio.ensure_future(llm.async_chat_oai(QUESTION))
        await asyncio.sleep(0.05)
        loop_runs.set()
        return str((await call)[0].output)

    assert asyncio.run(main()) == "Bonn"
    assert threads != [threading.main_thread().name]


def test_questions_of_parallel_calls_never_overlap(typist: Typist) -> None:
    llm, _ = make()
    llm.add_event_callback(BEFORE, ask_human)
    typist.lines = [f"answer {number}" for number in range(8)]
    results = parallel.chat_oai(llm, workers=8, conversations=QUESTION)
    assert sorted(result[0].output for result in results) == sorted(
        f"answer {number}" for number in range(8)
    )
    assert typist.most_at_once == 1


def test_a_list_of_instructions_is_one_question_each(typist: Typist) -> None:
    llm, _ = make()
    llm.add_event_callback(BEFORE, ask_human)
    typist.lines = ["one", "two", "three"]
    responses = llm.chat(None, LLMRequest(["a", "b", "c"]))
    assert [response.output for response in responses] == ["one", "two", "three"]


def test_the_clean_function_applies_to_a_person(typist: Typist) -> None:
    llm, _ = make()
    llm.add_event_callback(BEFORE, ask_human)
    llm.mapping_clean_func[llm.default_model_name or ""] = str.strip
    typist.lines = ["  Bonn  "]
    assert llm.chat_oai(QUESTION)[0].output == "Bonn"


def test_the_end_of_input_is_a_clear_error_and_frees_the_terminal(typist: Typist) -> None:
    llm, _ = make()
    llm.add_event_callback(BEFORE, ask_human)
    with pytest.raises(HumanUnavailable, match="input has ended"):
        llm.chat_oai(QUESTION)
    typist.lines = ["Bonn"]
    assert llm.chat_oai(QUESTION)[0].output == "Bonn"


def test_ctrl_c_during_a_question_ends_the_call_and_frees_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    llm, _ = make()
    llm.add_event_callback(BEFORE, ask_human)

    def interrupted(prompt: str = "") -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(builtins, "input", interrupted)
    with pytest.raises(KeyboardInterrupt):
        llm.chat_oai(QUESTION)
    monkeypatch.setattr(builtins, "input", Typist("Bonn"))
    assert llm.chat_oai(QUESTION)[0].output == "Bonn"


def test_a_slow_person_holds_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ScriptedModel("Berlin.", concurrency=1)
    llm = llm_for(model)
    asked, answer = threading.Event(), threading.Event()

    def slow(prompt: str = "") -> str:
        asked.set()
        assert answer.wait(5)
        return "Bonn"

    monkeypatch.setattr(builtins, "input", slow)
    other = ByzerLLM().setup_default_model_name(llm.default_model_name or "")
    llm.add_event_callback(BEFORE, ask_human)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(llm.chat_oai(QUESTION)))
    thread.start()
    assert asked.wait(5)
    assert other.chat_oai(QUESTION)[0].output == "Berlin."  # the one slot is free meanwhile
    answer.set()
    thread.join()
    assert results[0][0].output == "Bonn"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("api_key", "sk-123"),
        ("saas.api_key", "sk-123"),
        ("gen.token", "sk-123"),
        ("Authorization", "Bearer sk-123"),
        ("client_secret", "sk-123"),
        ("headers", {"x-api-key": "sk-123"}),
    ],
)
def test_credentials_are_masked_when_shown(
    typist: Typist, capsys: pytest.CaptureFixture[str], key: str, value: Any
) -> None:
    llm, _ = make()
    llm.add_event_callback(BEFORE, ask_human)
    typist.lines = ["Bonn"]
    llm.chat_oai(QUESTION, llm_config={key: value})
    shown = capsys.readouterr().out
    assert "sk-123" not in shown
    assert "***" in shown


def test_settings_that_only_sound_like_credentials_are_shown(
    typist: Typist, capsys: pytest.CaptureFixture[str]
) -> None:
    llm, _ = make()
    llm.add_event_callback(BEFORE, ask_human)
    typist.lines = ["Bonn"]
    llm.chat_oai(QUESTION, llm_config={"max_tokens": 7, "gen.stop_token_ids": [5]})
    shown = capsys.readouterr().out
    assert "max_tokens: 7" in shown
    assert "gen.stop_token_ids: [5]" in shown


def test_a_prompt_cannot_act_on_the_terminal_that_shows_it(
    typist: Typist, capsys: pytest.CaptureFixture[str]
) -> None:
    llm, _ = make()
    llm.add_event_callback(BEFORE, ask_human)
    typist.lines = ["Bonn"]
    llm.chat_oai("evil \x1b]52;c;aGk=\x07 \x1b[2J \r text \x9b31m 中文")
    shown = capsys.readouterr().out
    assert not set("\x1b\x07\r\x9b") & set(shown)
    assert "中文" in shown


def test_an_answer_for_fewer_requests_than_there_are_is_refused() -> None:
    llm, model = make()
    rows = [{"predict": "no", "input": "", "metadata": {}}]
    llm.add_event_callback(BEFORE, answering((False, rows)))
    with pytest.raises(TypeError, match="each of the 2 requests"):
        llm._query("", [{"instruction": "a"}, {"instruction": "b"}])
    assert model.requests == []


def test_a_wrong_answer_shows_no_secret_of_the_request() -> None:
    llm, _ = make()
    llm.add_event_callback(BEFORE, lambda llm, model, items: items)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError) as caught:
        llm.chat_oai(QUESTION, llm_config={"api_key": "sk-123"})
    assert "sk-123" not in str(caught.value)


def test_a_chat_keeps_what_an_edit_has_put_before_it() -> None:
    llm, model = make()

    @llm.on.before_model(role="edit")
    def be_kind(event: BeforeModel) -> BeforeModel:
        assert isinstance(event.request, Generate)
        messages = [{"role": "system", "content": "S"}, *(event.request.messages or [])]
        return replace(event, request=replace(event.request, messages=messages))

    def warm(llm: ByzerLLM, model: str, items: list[dict[str, Any]]) -> Any:
        items[0]["temperature"] = 0.9

    llm.add_event_callback(BEFORE, warm)
    llm.chat(None, "U")
    assert model.requests[0].text == "S\nU"
    assert model.settings[0].values["temperature"] == 0.9


@pytest.mark.parametrize(
    "key", ["aws_access_key", "authToken", "openai_key", "sessionToken", "cookie", "pwd", "bearer"]
)
def test_credentials_are_known_by_many_names(key: str) -> None:
    assert masked({key: "x", "deep": [{key: "x"}]}) == {key: "***", "deep": [{key: "***"}]}
