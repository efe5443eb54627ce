"""Roles, order, scopes, removal, failure: what a handler may rely on."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

import byzerllm
from byzerllm import ByzerLLM
from byzerllm.errors import (
    CallDenied,
    CallTimeout,
    ConfigError,
    Overloaded,
    ProviderError,
    StreamError,
)
from byzerllm.events import (
    DROP,
    AfterCall,
    AfterModel,
    Answer,
    BeforeCall,
    BeforeModel,
    Deny,
    EndCall,
    Hooks,
    On,
    Retry,
    Stop,
    StreamChunk,
)
from byzerllm.testing import ScriptedModel, llm_for
from byzerllm.types import EventName, LLMRequest
from byzerllm.types.records import Chunk, Generate, Reply

ASK = "to be or not"


def make(script: Any = "one two three") -> tuple[ByzerLLM, ScriptedModel]:
    model = ScriptedModel(script)
    return llm_for(model), model


def with_text(event: BeforeModel, text: str) -> BeforeModel:
    request = event.request
    assert isinstance(request, Generate)
    changed = Generate(request.model, [{"role": "user", "content": text}], params=request.params)
    return BeforeModel(event.ctx, changed)


def text_of(event: BeforeModel) -> str:
    assert isinstance(event.request, Generate)
    return event.request.text


# -- order ------------------------------------------------------------------------------------


def test_edits_run_before_guards_and_guards_before_observers() -> None:
    llm, _ = make()
    ran: list[str] = []
    for role in ("observe", "guard", "edit"):
        for order in (2, 1):
            note = lambda event, name=f"{role}{order}": ran.append(name)  # noqa: E731
            llm.on.before_model(role=role, order=order)(note)
            llm.on.after_model(role=role, order=order)(
                lambda event, name=f"after-{role}{order}": ran.append(name)
            )
    llm.chat_oai(ASK)
    assert ran == [
        *("edit1", "edit2", "guard1", "guard2", "observe1", "observe2"),
        *("after-edit2", "after-edit1", "after-guard2", "after-guard1"),
        *("after-observe1", "after-observe2"),
    ]


def test_scopes_nest_from_global_to_the_single_call() -> None:
    llm, _ = make()
    ran: list[str] = []

    class Note:
        def __init__(self, name: str) -> None:
            self.name = name

        def install(self, on: On) -> None:
            on.before_model(lambda event: ran.append(self.name))

    everywhere = byzerllm.on.before_model(lambda event: ran.append("global"))
    try:
        llm.on.before_model(lambda event: ran.append("client"))
        with llm.hooks(Note("with")):
            llm.chat_oai(ASK, hooks=[Note("call")])
            other, _ = make()
            other.chat_oai(ASK)
        llm.chat_oai(ASK)
    finally:
        everywhere.remove()
    llm.chat_oai(ASK)
    assert ran == [
        *("global", "client", "with", "call"),
        "global",  # another client, inside the same `with`
        *("global", "client"),
        "client",
    ]


def test_a_with_block_covers_async_calls_and_streams() -> None:
    llm, _ = make()
    ran: list[str] = []

    class Note:
        def install(self, on: On) -> None:
            on.before_model(lambda event: ran.append(event.ctx.method))

    async def main() -> None:
        with llm.hooks(Note()):
            await asyncio.gather(llm.async_chat_oai(ASK), llm.async_chat_oai(ASK))
            async for _ in llm.async_stream_chat_oai(ASK):
                pass

    asyncio.run(main())
    assert ran == ["chat_oai", "chat_oai", "stream_chat_oai"]


def test_only_bundles_can_be_hooks() -> None:
    llm, _ = make()
    with pytest.raises(ConfigError, match="install"):
        llm.chat_oai(ASK, hooks=[lambda event: None])  # type: ignore[list-item]


# -- registering ------------------------------------------------------------------------------


def test_registering_gives_something_callable_and_removable() -> None:
    llm, model = make()

    @llm.on.before_model
    def guard(event: BeforeModel) -> Answer:
        return Answer("mine")

    @llm.on.after_model(role="observe")
    def look(event: AfterModel) -> None:
        looked.append(event)

    looked: list[AfterModel] = []
    assert llm.chat_oai(ASK)[0].output == "mine"
    assert guard(BeforeModel(looked[0].ctx, looked[0].request)) == Answer("mine")
    guard.remove()
    guard.remove()
    assert llm.chat_oai(ASK)[0].output == "one two three"
    assert len(model.requests) == 1


def test_handlers_can_be_added_and_removed_during_calls() -> None:
    llm, _ = make()
    stop = threading.Event()
    problems: list[BaseException] = []

    def churn() -> None:
        while not stop.is_set():
            subscription = llm.on.before_model(lambda event: None)
            subscription.remove()

    def ask() -> None:
        try:
            for _ in range(30):
                assert llm.chat_oai(ASK)[0].output == "one two three"
        except BaseException as error:
            problems.append(error)

    churners = [threading.Thread(target=churn) for _ in range(2)]
    askers = [threading.Thread(target=ask) for _ in range(4)]
    for thread in churners + askers:
        thread.start()
    for thread in askers:
        thread.join()
    stop.set()
    for thread in churners:
        thread.join()
    assert problems == []
    assert not llm._hooks


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"role": "boss"}, "edit, guard, observe"),
        ({"kinds": {"chat", "dance"}}, "dance"),
        ({"kinds": "dance"}, "dance"),
    ],
)
def test_unknown_roles_and_kinds_are_refused(options: Any, said: str) -> None:
    llm, _ = make()
    with pytest.raises(ConfigError, match=said):
        llm.on.before_model(**options)(lambda event: None)


def test_the_end_of_a_call_can_only_be_observed() -> None:
    llm, _ = make()
    with pytest.raises(ConfigError, match="only be observed"):
        llm.on.end_call(role="guard")(lambda event: None)


def test_kinds_choose_what_a_handler_sees() -> None:
    llm, _ = make()
    seen: list[str] = []
    llm.on.before_model(kinds={"embed", "tokenize"})(lambda event: seen.append(event.ctx.kind))
    llm.chat_oai(ASK)
    llm.emb_query("a")
    llm.tokenize(None, "a")
    llm.emb_rerank(sentence_pairs=("a", "b"))
    assert seen == ["embed", "tokenize"]


# -- verdicts ---------------------------------------------------------------------------------


def test_an_edit_changes_what_guards_and_the_model_see() -> None:
    llm, model = make()
    seen: list[str] = []
    llm.on.before_model(role="edit")(lambda event: with_text(event, text_of(event) + "!"))
    llm.on.before_model(role="guard")(lambda event: seen.append(text_of(event)))
    llm.chat_oai(ASK)
    assert seen == [ASK + "!"]
    assert model.requests[0].text == ASK + "!"


def test_a_guards_edit_is_shown_to_the_guards_before_it_once() -> None:
    llm, model = make()
    seen: list[str] = []
    llm.on.before_model(order=1)(lambda event: seen.append(text_of(event)))
    llm.on.before_model(order=2)(lambda event: with_text(event, "edited by a guard"))
    llm.chat_oai(ASK)
    assert seen == [ASK, "edited by a guard"]
    assert model.requests[0].text == "edited by a guard"


def test_an_edit_can_send_the_request_to_another_model() -> None:
    llm, first = make("first")
    second = ScriptedModel("second")
    llm.deploy("", second, "second-model")
    try:

        @llm.on.before_model(role="edit")
        def reroute(event: BeforeModel) -> BeforeModel:
            request = event.request
            assert isinstance(request, Generate)
            return BeforeModel(event.ctx, Generate("second-model", request.messages))

        assert llm.chat_oai(ASK)[0].output == "second"
        assert first.requests == []
    finally:
        llm.undeploy("second-model")


def test_before_call_may_change_answer_and_refuse() -> None:
    llm, model = make()

    @llm.on.before_call(role="edit")
    def change(event: BeforeCall) -> BeforeCall:
        (request,) = event.requests
        assert isinstance(request, Generate)
        return BeforeCall(event.ctx, (Generate(request.model, prompt="changed"),))

    llm.chat_oai(ASK)
    assert model.requests[0].prompt == "changed"
    change.remove()
    answer = llm.on.before_call(lambda event: Answer("whole call", by="cache"))
    response = llm.chat_oai(ASK)[0]
    assert (response.output, response.metadata["by"]) == ("whole call", "cache")
    assert [text for text, _ in llm.stream_chat_oai(ASK)] == ["whole call"]
    answer.remove()
    llm.on.before_call(lambda event: Deny("closed"))
    with pytest.raises(CallDenied, match="closed"):
        llm.chat_oai(ASK)
    assert len(model.requests) == 1


def test_after_events_may_change_and_withhold() -> None:
    llm, _ = make()

    @llm.on.after_model
    def shout(event: AfterModel) -> AfterModel:
        return AfterModel(event.ctx, event.request, Reply(event.reply.text.upper()))

    @llm.on.after_call
    def sign(event: AfterCall) -> AfterCall:
        return AfterCall(event.ctx, event.requests, (Reply(event.replies[0].text + " -- me"),))

    assert llm.chat_oai(ASK)[0].output == "ONE TWO THREE -- me"
    withhold = llm.on.after_call(lambda event: Deny("secret"))
    with pytest.raises(CallDenied, match="secret"):
        llm.chat_oai(ASK)
    withhold.remove()
    llm.on.after_model(lambda event: Deny("no good"))
    with pytest.raises(CallDenied, match="no good"):
        llm.chat_oai(ASK)


def test_a_retry_shows_the_model_its_answer_and_the_feedback() -> None:
    llm, model = make(["wrong", "right"])

    @llm.on.after_model
    def check(event: AfterModel) -> Retry | None:
        return Retry("Try again.") if event.reply.value == "wrong" else None

    assert llm.chat_oai(ASK)[0].output == "right"
    assert model.requests[1].messages == [
        {"role": "user", "content": ASK},
        {"role": "assistant", "content": "wrong"},
        {"role": "user", "content": "Try again."},
    ]


def test_retries_are_bounded_and_never_done_to_a_persons_answer() -> None:
    llm, model = make("wrong")
    llm.on.after_model(lambda event: Retry("again"))
    with pytest.raises(CallDenied, match="again"):
        llm.chat_oai(ASK)
    assert len(model.requests) == 4
    llm.on.before_model(lambda event: Answer("said once", by="human"))
    assert llm.chat_oai(ASK)[0].output == "said once"


def test_a_retry_after_text_has_left_a_stream_is_refused() -> None:
    llm, _ = make()
    llm.on.after_model(lambda event: Retry("again"))
    with pytest.raises(StreamError, match="whole replies"):
        list(llm.stream_chat_oai(ASK))


def test_chunks_can_be_changed_dropped_and_cut_off() -> None:
    llm, model = make("one two three four")

    @llm.on.chunk
    def edit(event: StreamChunk) -> Any:
        text = event.chunk.text.strip()
        if text == "one":
            return StreamChunk(event.ctx, event.request, Chunk(text="ONE "))
        if text == "two":
            return DROP
        return Stop() if text == "four" else None

    pieces = [text for text, _ in llm.stream_chat_oai(ASK, delta_mode=True)]
    assert pieces == ["ONE ", "three ", ""]
    assert model.running == 0


def test_a_verdict_of_the_wrong_kind_names_the_handler() -> None:
    llm, _ = make()

    def my_handler(event: Any) -> Any:
        return "yes"

    llm.on.before_model(my_handler)
    with pytest.raises(TypeError, match="my_handler"):
        llm.chat_oai(ASK)


def test_an_answer_that_is_no_text_is_refused() -> None:
    llm, _ = make()
    llm.on.before_model(lambda event: Answer(42))
    with pytest.raises(TypeError, match="text"):
        llm.chat_oai(ASK)


# -- failure ----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["edit", "guard"])
def test_a_gate_that_raises_stops_the_call(role: str) -> None:
    llm, model = make()
    seen: list[Any] = []
    llm.on.before_model(role="observe")(seen.append)

    @llm.on.before_model(role=role)
    def broken(event: BeforeModel) -> None:
        raise RuntimeError("gate broken")

    with pytest.raises(RuntimeError, match="gate broken"):
        llm.chat_oai(ASK)
    assert model.requests == []
    assert len(seen) == 1  # observers run all the same


def test_an_observer_that_raises_is_logged_and_counted_and_goes_no_further(
    caplog: pytest.LogCaptureFixture,
) -> None:
    llm, _ = make()

    @llm.on.after_model(role="observe")
    def broken(event: AfterModel) -> None:
        raise RuntimeError("observer broken")

    with caplog.at_level(logging.ERROR, "byzerllm"):
        assert llm.chat_oai(ASK)[0].output == "one two three"
    assert broken.failures == 1
    assert "observer broken" in caplog.text


def test_a_gate_that_takes_too_long_stops_the_call() -> None:
    llm, model = make()
    forever = threading.Event()

    @llm.on.before_model(timeout=0.05)
    def slow(event: BeforeModel) -> None:
        forever.wait(10)

    with pytest.raises(CallTimeout, match="longer than"):
        llm.chat_oai(ASK)
    with pytest.raises(CallTimeout, match="longer than"):
        asyncio.run(llm.async_chat_oai(ASK))
    forever.set()
    assert model.requests == []


def test_the_end_is_told_with_its_outcome_and_times() -> None:
    llm, _ = make()
    ends: list[EndCall] = []
    llm.on.end_call(ends.append)
    pause = threading.Event()

    @llm.on.before_model
    def slow(event: BeforeModel) -> None:
        pause.wait(0.03)

    llm.chat_oai(ASK)
    assert ends[0].outcome == "ok"
    assert 0.02 < ends[0].handler_seconds <= ends[0].seconds


# -- threads and loops ------------------------------------------------------------------------


def test_plain_calls_run_handlers_in_the_callers_thread() -> None:
    llm, _ = make()
    threads: list[threading.Thread] = []
    llm.on.before_model(lambda event: threads.append(threading.current_thread()))
    llm.chat_oai(ASK)
    list(llm.stream_chat_oai(ASK))
    assert threads == [threading.current_thread()] * 2


def test_async_calls_run_plain_handlers_elsewhere_and_async_ones_on_the_loop() -> None:
    llm, _ = make()
    threads: list[threading.Thread] = []
    llm.on.before_model(lambda event: threads.append(threading.current_thread()))

    @llm.on.before_model
    async def on_the_loop(event: BeforeModel) -> Answer:
        await asyncio.sleep(0)
        threads.append(threading.current_thread())
        return Answer("async")

    assert asyncio.run(llm.async_chat_oai(ASK))[0].output == "async"
    assert threads[0] is not threading.current_thread()
    assert threads[1] is threading.current_thread()


def test_async_handlers_work_on_plain_calls_even_inside_a_running_loop() -> None:
    llm, _ = make()

    @llm.on.before_model
    async def answer(event: BeforeModel) -> Answer:
        await asyncio.sleep(0)
        return Answer("async")

    assert llm.chat_oai(ASK)[0].output == "async"

    async def notebook() -> str:
        return str(llm.chat_oai(ASK)[0].output)  # a plain call in a cell of a notebook

    assert asyncio.run(notebook()) == "async"


def test_state_is_shared_by_the_handlers_of_one_call() -> None:
    llm, _ = make()

    @llm.on.before_call
    def note(event: BeforeCall) -> None:
        event.ctx.state["note"] = event.ctx.state.get("note", 0) + 1

    found: list[int] = []
    llm.on.after_model(lambda event: found.append(event.ctx.state["note"]))
    llm.chat_oai(ASK)
    llm.chat_oai(ASK)
    assert found == [1, 1]


def test_hooks_are_falsy_when_empty() -> None:
    hooks = Hooks()
    assert not hooks
    subscription = hooks.on.before_call(lambda event: None)
    assert hooks
    subscription.remove()
    assert not hooks


# -- gates do not stand open ------------------------------------------------------------------


def test_guards_see_what_an_old_callback_made_of_the_request() -> None:
    llm, model = make()

    @llm.on.before_model
    def no_secrets(event: BeforeModel) -> Deny | None:
        return Deny("secret") if "SECRET" in text_of(event) else None

    def smuggle(llm: ByzerLLM, name: str, items: list[dict[str, Any]]) -> None:
        items[0]["instruction"] = "SECRET"

    llm.add_event_callback(EventName.BEFORE_CALL_MODEL, smuggle)  # type: ignore[arg-type]
    with pytest.raises(CallDenied, match="secret"):
        llm.chat_oai(ASK)
    assert model.requests == []


def test_guards_see_each_others_changes_until_nothing_changes() -> None:
    llm, model = make()
    seen: list[str] = []
    changes = {"one": "two", "two": "three"}
    llm.on.before_model(order=1)(lambda event: seen.append(text_of(event)))

    def change(said: str) -> Any:
        def handler(event: BeforeModel) -> BeforeModel | None:
            text = text_of(event)
            return with_text(event, changes[text]) if text == said else None

        return handler

    llm.on.before_model(order=2)(change("two"))
    llm.on.before_model(order=3)(change("one"))
    llm.chat_oai("one")
    assert seen[-1] == "three"
    assert model.requests[0].text == "three"
    llm.on.before_model(order=4)(lambda event: with_text(event, text_of(event) + "!"))
    llm.on.before_model(order=5)(lambda event: with_text(event, text_of(event) + "?"))
    with pytest.raises(CallDenied, match="without end"):
        llm.chat_oai("x")


def test_a_retry_on_a_persons_answer_skips_no_guard() -> None:
    llm, _ = make()
    llm.on.before_model(lambda event: Answer("secret", by="human"))
    llm.on.after_model(lambda event: Deny("no") if "secret" in event.reply.text else None)
    llm.on.after_model(lambda event: Retry("again"))  # runs first: after-events unwind
    with pytest.raises(CallDenied, match="no"):
        llm.chat_oai(ASK)


def test_a_guard_of_one_kind_sees_its_items_of_a_mixed_query() -> None:
    model = ScriptedModel("x", message_format=False)
    llm = llm_for(model)
    llm.on.before_model(kinds="chat")(lambda event: Deny("no chats"))
    history = [{"role": "user", "content": "hi"}]
    items = [{"instruction": "completion"}, {"instruction": "chat", "history": history}]
    with pytest.raises(CallDenied, match="no chats"):
        llm._query("", items)
    assert [request.prompt for request in model.requests] == ["completion"]


def test_edits_are_made_once_to_what_is_sent_however_many_attempts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("byzerllm.client.attempts.FIRST_PAUSE", 0.001)
    llm, model = make([Overloaded("full", 0.001), Overloaded("full", 0.001), "fine"])

    @llm.on.before_model(role="edit")
    def greet(event: BeforeModel) -> BeforeModel:
        return with_text(event, "Hello. " + text_of(event))

    assert llm.chat_oai(ASK)[0].output == "fine"
    assert [request.text for request in model.requests] == ["Hello. " + ASK] * 3


def test_nothing_is_changed_in_place() -> None:
    llm, model = make()
    stop = ["a"]
    conversation = [{"role": "user", "content": [{"type": "text", "text": "as it was"}]}]

    def meddle(event: BeforeModel) -> None:
        assert isinstance(event.request, Generate)
        assert event.request.messages
        event.request.messages[0]["content"][0]["text"] = "BAD"
        event.request.params["gen.stop"].append("BAD")

    for role in ("edit", "guard", "observe"):
        llm.on.before_model(role=role)(meddle)
    llm.chat_oai(conversation, llm_config={"gen.stop": stop})
    assert model.requests[0].text == "as it was"
    assert model.settings[0].values["stop"] == ["a"]
    assert stop == ["a"]
    assert conversation[0]["content"] == [{"type": "text", "text": "as it was"}]


def test_a_stream_keeps_the_handlers_of_the_block_it_was_made_in() -> None:
    llm, model = make()

    class Closed:
        def install(self, on: On) -> None:
            on.before_model(lambda event: Deny("closed"))

    with llm.hooks(Closed()):
        stream = llm.stream_chat_oai(ASK)
        async_stream = llm.async_stream_chat_oai(ASK)
    with pytest.raises(CallDenied, match="closed"):
        next(stream)

    async def read() -> None:
        await async_stream.__anext__()

    with pytest.raises(CallDenied, match="closed"):
        asyncio.run(read())
    assert model.requests == []


@pytest.mark.parametrize("streamed", [False, True])
def test_no_other_model_steps_in_for_what_the_caller_or_a_handler_did(streamed: bool) -> None:
    llm, _ = make()
    other = ScriptedModel("other")
    llm.deploy("", other, "other-model")
    llm.setup_fallback_models(llm.default_model_name or "", ["other-model"])

    def ask(**config: Any) -> None:
        if streamed:
            list(llm.stream_chat_oai(ASK, llm_config=config))
        else:
            llm.chat_oai(ASK, llm_config=config)

    try:
        with pytest.raises(ConfigError):
            ask(temperature="hot")

        @llm.on.chunk
        def broken(event: StreamChunk) -> None:
            raise RuntimeError("handler")

        if streamed:
            with pytest.raises(RuntimeError, match="handler"):
                ask()
    finally:
        llm.undeploy("other-model")
    assert other.requests == []


def test_what_a_model_error_handler_hides_is_kept_as_the_cause() -> None:
    llm, _ = make(ProviderError("the real reason", status=400))

    @llm.on.model_error
    def broken(event: Any) -> None:
        raise RuntimeError("handler")

    with pytest.raises(RuntimeError, match="handler") as caught:
        llm.chat_oai(ASK)
    assert "the real reason" in str(caught.value.__cause__)


def test_every_item_of_a_batch_reaches_its_handlers_though_one_is_refused() -> None:
    llm, _ = make(lambda request: request.text)
    seen: list[str] = []
    llm.on.after_model(role="observe")(lambda event: seen.append(event.reply.text))
    llm.on.after_model(lambda event: Deny("b") if event.reply.text == "b" else None)
    with pytest.raises(CallDenied):
        llm.chat(None, LLMRequest(["a", "b", "c"]))
    assert seen == ["a", "b", "c"]
