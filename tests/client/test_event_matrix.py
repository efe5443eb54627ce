"""Every public method × every event × plain, async and streamed: exact counts and payloads."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from byzerllm import ByzerLLM
from byzerllm.client import parallel
from byzerllm.errors import CallDenied, ProviderError, ProviderUnreachable
from byzerllm.events import Answer, Deny, Recover
from byzerllm.testing import ScriptedModel, llm_for
from byzerllm.types import EventName, LLMRequest

MESSAGES = [{"role": "user", "content": "to be or not"}]
WORDS = "one two three"
PAIRS = [("a b", "b c"), ("a b", "a b")]
EVENTS = [
    *("before_call", "after_call", "end_call"),
    *("before_model", "chunk", "after_model", "model_error", "progress"),
    *("old_before", "old_after"),
]

# method: (kind, requests in one call, the call)
Method = tuple[str, int, Callable[[ByzerLLM], Any]]
PLAIN: dict[str, Method] = {
    "chat": ("chat", 1, lambda llm: llm.chat(None, "to be or not")),
    "chat(list)": ("chat", 3, lambda llm: llm.chat(None, LLMRequest(["to", "be", "or"]))),
    "raw_chat": ("chat", 1, lambda llm: llm.raw_chat(None, "to be or not")),
    "chat_oai": ("chat", 1, lambda llm: llm.chat_oai(MESSAGES)),
    "stream_chat_oai": ("chat", 1, lambda llm: list(llm.stream_chat_oai(MESSAGES))),
    "stream_chat_oai(delta)": (
        "chat",
        1,
        lambda llm: list(llm.stream_chat_oai(MESSAGES, delta_mode=True)),
    ),
    "_query": ("chat", 1, lambda llm: llm._query("", [{"instruction": "to be", "history": []}])),
    "_query(list)": (
        "chat",
        2,
        lambda llm: llm._query("", [{"instruction": "a"}, {"instruction": "b"}]),
    ),
    "emb": ("embed", 1, lambda llm: llm.emb(None, ["a", "b"])),
    "emb_query": ("embed", 1, lambda llm: llm.emb_query("a")),
    "emb_rerank": ("rerank", 1, lambda llm: llm.emb_rerank(sentence_pairs=PAIRS)),
    "tokenize": ("tokenize", 1, lambda llm: llm.tokenize(None, "a b")),
    "apply_chat_template": (
        "render_chat",
        1,
        lambda llm: llm.apply_chat_template(None, '[{"role": "user", "content": "a"}]'),
    ),
    "get_meta": ("meta", 1, lambda llm: llm.get_meta("")),
}


async def collect(stream: Any) -> list[Any]:
    return [item async for item in stream]


ASYNC: dict[str, Method] = {
    "chat": ("chat", 1, lambda llm: llm.async_chat(None, "to be or not")),
    "chat(list)": ("chat", 3, lambda llm: llm.async_chat(None, LLMRequest(["to", "be", "or"]))),
    "raw_chat": ("chat", 1, lambda llm: llm.async_raw_chat(None, "to be or not")),
    "chat_oai": ("chat", 1, lambda llm: llm.async_chat_oai(MESSAGES)),
    "stream_chat_oai": ("chat", 1, lambda llm: collect(llm.async_stream_chat_oai(MESSAGES))),
    "stream_chat_oai(delta)": (
        "chat",
        1,
        lambda llm: collect(llm.async_stream_chat_oai(MESSAGES, delta_mode=True)),
    ),
    "_query": ("chat", 1, lambda llm: llm.async_query("", [{"instruction": "a", "history": []}])),
    "_query(list)": (
        "chat",
        2,
        lambda llm: llm.async_query("", [{"instruction": "a"}, {"instruction": "b"}]),
    ),
    "emb": ("embed", 1, lambda llm: llm.async_emb(None, ["a", "b"])),
    "emb_query": ("embed", 1, lambda llm: llm.async_emb_query("a")),
    "emb_rerank": ("rerank", 1, lambda llm: llm.async_emb_rerank(sentence_pairs=PAIRS)),
    "tokenize": ("tokenize", 1, lambda llm: llm.async_tokenize(None, "a b")),
    "apply_chat_template": (
        "render_chat",
        1,
        lambda llm: llm.async_apply_chat_template(None, '[{"role": "user", "content": "a"}]'),
    ),
    "get_meta": ("meta", 1, lambda llm: llm.async_get_meta("")),
}
ROWS = [("plain", name) for name in PLAIN] + [("async", name) for name in ASYNC]


class Watcher:
    """Counts every event, and keeps the payloads."""

    def __init__(self, llm: ByzerLLM, kinds: str | None) -> None:
        self.seen: list[tuple[str, Any]] = []
        for name in EVENTS[:8]:
            getattr(llm.on, name)(role="observe", kinds=kinds)(self._note(name))
        llm.add_event_callback(EventName.BEFORE_CALL_MODEL, self._old("old_before"), kinds=kinds)
        llm.add_event_callback(EventName.AFTER_CALL_MODEL, self._old("old_after"), kinds=kinds)

    def _note(self, name: str) -> Callable[[Any], None]:
        return lambda event: self.seen.append((name, event))

    def _old(self, name: str) -> Callable[..., Any]:
        def callback(llm: ByzerLLM, model: str, rows: list[dict[str, Any]]) -> Any:
            self.seen.append((name, rows))
            return True, None

        return callback

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(name for name, _ in self.seen)
        return {name: found[name] for name in EVENTS}

    def of(self, name: str) -> list[Any]:
        return [payload for seen, payload in self.seen if seen == name]


def make(script: Any = WORDS) -> tuple[ByzerLLM, ScriptedModel]:
    model = ScriptedModel(script)
    llm = llm_for(model)
    llm.meta_cache.clear()
    llm._hooks._table = {}
    return llm, model


def perform(llm: ByzerLLM, mode: str, name: str) -> Any:
    if mode == "plain":
        return PLAIN[name][2](llm)
    return asyncio.run(ASYNC[name][2](llm))


def row(mode: str, name: str) -> tuple[str, int, bool]:
    kind, count, _ = (PLAIN if mode == "plain" else ASYNC)[name]
    return kind, count, name.startswith("stream")


def expect(**counts: int) -> dict[str, int]:
    return {name: counts.get(name, 0) for name in EVENTS}


@pytest.mark.parametrize(("mode", "name"), ROWS)
def test_default_handlers_see_generations_and_nothing_else(mode: str, name: str) -> None:
    llm, model = make()
    watcher = Watcher(llm, None)
    perform(llm, mode, name)
    kind, count, streams = row(mode, name)
    if kind != "chat":
        assert watcher.counts == expect()
        return
    assert watcher.counts == expect(
        before_call=1,
        after_call=1,
        end_call=1,
        before_model=count,
        after_model=count,
        chunk=4 if streams else 0,  # three words, and the finish
        old_before=1,
        old_after=1,
    )
    assert len(model.requests) == count


@pytest.mark.parametrize(("mode", "name"), ROWS)
def test_handlers_of_all_kinds_see_every_request(mode: str, name: str) -> None:
    llm, _ = make()
    llm.get_meta("")  # known from now on, as in any program's second call
    if name == "get_meta":
        llm.meta_cache.clear()
    watcher = Watcher(llm, "all")
    perform(llm, mode, name)
    kind, count, streams = row(mode, name)
    assert watcher.counts == expect(
        before_call=1,
        after_call=1,
        end_call=1,
        before_model=count,
        after_model=count,
        chunk=4 if streams else 0,
        old_before=1,
        old_after=1,
    )
    assert {event.ctx.kind for event in watcher.of("before_model")} == {kind}


@pytest.mark.parametrize(("mode", "name"), ROWS)
def test_payloads_tell_what_was_called(mode: str, name: str) -> None:
    llm, _ = make()
    watcher = Watcher(llm, None)
    perform(llm, mode, name)
    kind, count, streams = row(mode, name)
    if kind != "chat":
        return
    contexts = [event.ctx for seen, event in watcher.seen if not seen.startswith("old")]
    assert {ctx.method for ctx in contexts} == {name.partition("(")[0]}
    assert {(ctx.stream, ctx.is_async) for ctx in contexts} == {(streams, mode == "async")}
    assert len({ctx.call_id for ctx in contexts}) == 1
    assert {ctx.attempt for ctx in contexts} == {1}
    (call,) = watcher.of("before_call")
    assert len(call.requests) == count
    assert [event.request for event in watcher.of("before_model")] == list(call.requests)
    assert {event.reply.value for event in watcher.of("after_model")} == {WORDS}
    (end,) = watcher.of("end_call")
    assert (end.outcome, end.error) == ("ok", None)
    (items,) = watcher.of("old_before")
    assert [item["instruction"] for item in items] == [
        request.messages[-1]["content"] for request in call.requests
    ]
    (rows,) = watcher.of("old_after")
    assert [set(found) for found in rows] == [{"predict", "input", "metadata"}] * count
    if streams:
        pieces = [event.chunk.text for event in watcher.of("chunk")]
        assert "".join(pieces) == WORDS


@pytest.mark.parametrize(("mode", "name"), [row for row in ROWS if PLAIN[row[1]][0] == "chat"])
def test_a_guards_answer_skips_the_model_and_nothing_else(mode: str, name: str) -> None:
    llm, model = make()
    watcher = Watcher(llm, None)
    llm.on.before_model(lambda event: Answer("from a guard", by="test"))
    result = perform(llm, mode, name)
    _, count, streams = row(mode, name)
    assert watcher.counts == expect(
        before_call=1,
        after_call=1,
        end_call=1,
        before_model=count,
        after_model=count,
        chunk=1 if streams else 0,
        old_after=1,  # the guard decided before the callbacks of the old form
    )
    assert model.requests == []
    assert {event.reply.by for event in watcher.of("after_model")} == {"test"}
    assert "from a guard" in str(result)


@pytest.mark.parametrize(("mode", "name"), [row for row in ROWS if PLAIN[row[1]][0] == "chat"])
def test_an_old_callbacks_answer_skips_the_model_and_nothing_else(mode: str, name: str) -> None:
    llm, model = make()
    watcher = Watcher(llm, None)

    def answer(llm: ByzerLLM, model: str, items: list[dict[str, Any]]) -> Any:
        return False, ["typed"] * len(items)

    llm.add_event_callback(EventName.BEFORE_CALL_MODEL, answer)
    result = perform(llm, mode, name)
    _, count, streams = row(mode, name)
    assert watcher.counts == expect(
        before_call=1,
        after_call=1,
        end_call=1,
        before_model=count,
        after_model=count,
        chunk=1 if streams else 0,
        old_before=1,
        old_after=1,
    )
    assert model.requests == []
    assert str(result).count("typed") == (count if not name.endswith("(delta)") else 1)


@pytest.mark.parametrize(("mode", "name"), ROWS)
def test_a_refusal_reaches_the_caller_and_the_end(mode: str, name: str) -> None:
    llm, model = make()
    llm.get_meta("")
    if name == "get_meta":
        llm.meta_cache.clear()
    watcher = Watcher(llm, "all")
    llm.on.before_model(kinds="all")(lambda event: Deny("not today"))
    with pytest.raises(CallDenied, match="not today"):
        perform(llm, mode, name)
    assert watcher.counts == expect(before_call=1, end_call=1, before_model=1)
    assert watcher.of("end_call")[0].outcome == "denied"
    assert model.requests == []


@pytest.mark.parametrize(("mode", "name"), [row for row in ROWS if PLAIN[row[1]][0] == "chat"])
def test_a_failure_is_told_once_for_each_attempt(mode: str, name: str) -> None:
    llm, _model = make(lambda request: ProviderError("broken", status=400))
    watcher = Watcher(llm, None)
    with pytest.raises(ProviderError, match="broken"):
        perform(llm, mode, name)
    _, count, _ = row(mode, name)
    assert watcher.counts == expect(
        before_call=1, end_call=1, before_model=count, model_error=count, old_before=1
    )
    assert watcher.of("model_error")[0].will_retry is False
    assert watcher.of("end_call")[0].outcome == "failed"


@pytest.mark.parametrize(
    ("mode", "name"), [row for row in ROWS if PLAIN[row[1]][:2] == ("chat", 1)]
)
def test_a_second_attempt_is_the_model_family_again(
    mode: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byzerllm.client.attempts.FIRST_PAUSE", 0.001)
    llm, model = make([ProviderUnreachable("gone"), WORDS])
    watcher = Watcher(llm, None)
    perform(llm, mode, name)
    streams = row(mode, name)[2]
    assert watcher.counts == expect(
        before_call=1,
        after_call=1,
        end_call=1,
        before_model=2,
        after_model=1,
        model_error=1,
        chunk=4 if streams else 0,
        old_before=1,  # these decide once for all attempts
        old_after=1,
    )
    assert [event.ctx.attempt for event in watcher.of("before_model")] == [1, 2]
    assert watcher.of("model_error")[0].will_retry is True
    assert len(model.requests) == 2


@pytest.mark.parametrize(("mode", "name"), [row for row in ROWS if PLAIN[row[1]][0] == "chat"])
def test_a_recovered_error_is_a_reply(mode: str, name: str) -> None:
    llm, _ = make(lambda request: ProviderError("broken", status=400))
    watcher = Watcher(llm, None)
    llm.on.model_error(lambda event: Recover("instead", by="test"))
    result = perform(llm, mode, name)
    _, count, streams = row(mode, name)
    assert watcher.counts == expect(
        before_call=1,
        after_call=1,
        end_call=1,
        before_model=count,
        after_model=count,
        model_error=count,
        chunk=1 if streams else 0,
        old_before=1,
        old_after=1,
    )
    assert "instead" in str(result)


@pytest.mark.parametrize("mode", ["plain", "async"])
def test_a_stream_that_is_closed_early_still_ends(mode: str) -> None:
    llm, model = make("word " * 50)
    watcher = Watcher(llm, None)
    if mode == "plain":
        stream = llm.stream_chat_oai(MESSAGES)
        next(stream)
        stream.close()
    else:

        async def read_one() -> None:
            stream = llm.async_stream_chat_oai(MESSAGES)
            await stream.__anext__()
            await stream.aclose()

        asyncio.run(read_one())
    assert watcher.counts == expect(
        before_call=1, end_call=1, before_model=1, chunk=1, old_before=1
    )
    assert watcher.of("end_call")[0].outcome == "cancelled"
    assert model.running == 0


def test_the_parallel_helper_makes_calls_of_its_own() -> None:
    llm, model = make()
    watcher = Watcher(llm, None)
    assert len(parallel.chat_oai(llm, workers=3, conversations=MESSAGES)) == 3
    assert watcher.counts == expect(
        before_call=3,
        after_call=3,
        end_call=3,
        before_model=3,
        after_model=3,
        old_before=3,
        old_after=3,
    )
    assert len(model.requests) == 3
