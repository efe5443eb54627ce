"""Plug-ins of the shape of earlier releases work through the public client."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from byzerllm import ByzerLLM
from byzerllm.errors import (
    ByzerError,
    CallTimeout,
    ConfigError,
    DeployError,
    ProviderError,
    Unsupported,
)
from byzerllm.types import LLMRequest

Deploy = Callable[..., ByzerLLM]
_names = itertools.count(1)


def module(monkeypatch: pytest.MonkeyPatch, path: str, **contents: Any) -> None:
    found = types.ModuleType(path)
    vars(found).update(contents)
    monkeypatch.setitem(sys.modules, path, found)


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[Deploy]:
    """Deploy an object as what ``byzerllm.<name>.init_model`` returns."""
    yield from deploying(monkeypatch, hosted=False)


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Deploy]:
    """Deploy an object as what ``byzerllm.saas.<name>.CustomSaasAPI`` makes."""
    yield from deploying(monkeypatch, hosted=True)


def deploying(monkeypatch: pytest.MonkeyPatch, *, hosted: bool) -> Iterator[Deploy]:
    deployed: list[tuple[ByzerLLM, str]] = []

    def make(model: Any, **infer_params: Any) -> ByzerLLM:
        name = f"plugin{next(_names)}"
        if hosted:
            module(monkeypatch, f"byzerllm.saas.{name}", CustomSaasAPI=lambda given: model)
        else:
            module(monkeypatch, f"byzerllm.{name}", init_model=lambda *given: (model, "tokenizer"))
        llm = ByzerLLM()
        llm.setup_default_model_name(name)
        llm.setup_default_emb_model_name(name)
        llm.setup_default_re_rank_model_name(name)
        llm.deploy("/models/x", f"saas/{name}" if hosted else f"custom/{name}", name, infer_params)
        deployed.append((llm, name))
        return llm

    yield make
    for llm, name in deployed:
        llm.undeploy(name)


class Plain:
    """Every method, plain."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.threads: set[str] = set()

    def get_meta(self) -> list[dict[str, Any]]:
        return [{"model_name": "plain", "message_format": True, "support_stream": True}]

    def stream_chat(
        self,
        tokenizer: Any,
        ins: Any,
        his: Any,
        max_length: int,
        top_p: float,
        temperature: float,
        **kwargs: Any,
    ) -> list[Any]:
        self.threads.add(threading.current_thread().name)
        self.asked.append((tokenizer, ins, his, max_length, top_p, temperature, kwargs))
        metadata = {
            "request_id": "r7",
            "input_tokens_count": 5,
            "generated_tokens_count": 2,
            "time_cost": 3,
            "reasoning_content": "hm",
            "finish_reason": "length",
        }
        return [("not this", {"metadata": {}}), (f"echo {ins}", {"metadata": metadata})]

    def embed_query(self, ins: str, extract_params: dict[str, Any]) -> Any:
        self.asked.append((ins, extract_params))
        return [float(len(ins)), 1]

    def embed_rerank(self, sentence_pairs: Any, extract_params: dict[str, Any]) -> Any:
        pairs = sorted(sentence_pairs, key=lambda pair: len(pair[1]))
        return [(pair, 1 / len(pair[1])) for pair in pairs]


class Async(Plain):
    """Every method, async."""

    loops: set[Any]

    async def async_get_meta(self) -> Any:
        return Plain.get_meta(self)

    async def async_stream_chat(self, *args: Any, **kwargs: Any) -> Any:
        self.loops = getattr(self, "loops", set()) | {asyncio.get_running_loop()}
        await asyncio.sleep(0)
        return Plain.stream_chat(self, *args, **kwargs)

    async def async_embed_query(self, ins: str, extract_params: dict[str, Any]) -> Any:
        vector = Plain.embed_query(self, ins, extract_params)
        return vector, {"metadata": {"input_tokens_count": 2}}

    async def embed_rerank(self, sentence_pairs: Any, extract_params: Any) -> Any:  # type: ignore[override]
        return Plain.embed_rerank(self, sentence_pairs, extract_params)

    stream_chat = None  # type: ignore[assignment]
    embed_query = None  # type: ignore[assignment]


@pytest.fixture(params=["local", "hosted"])
def deploy(request: pytest.FixtureRequest) -> Deploy:
    made: Deploy = request.getfixturevalue(request.param)
    return made


@pytest.fixture(params=[Plain, Async])
def model(request: pytest.FixtureRequest) -> Plain:
    made: Plain = request.param()
    return made


# -- calls --------------------------------------------------------------------------------------


def test_a_conversation_reaches_it_as_instruction_and_history(deploy: Deploy, model: Plain) -> None:
    llm = deploy(model)
    earlier = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]

    answer = llm.chat_oai(
        [*earlier, {"role": "user", "content": "c"}],
        llm_config={"max_length": 9, "gen.top_k": 4, "hook.x": 1},
    )[0]

    (tokenizer, ins, his, max_length, top_p, temperature, more) = model.asked[0]
    assert (ins, his, max_length, top_p, temperature) == ("c", earlier, 9, 0.7, 0.9)
    assert more == {"top_k": 4}
    assert tokenizer in ("tokenizer", None)
    assert answer.output == "echo c"
    assert answer.metadata["input_tokens_count"] == 5
    assert answer.metadata["generated_tokens_count"] == 2
    assert answer.metadata["reasoning_content"] == "hm"
    assert answer.metadata["finish_reason"] == "length"


def test_the_other_calls_reach_it_too(deploy: Deploy, model: Plain) -> None:
    llm = deploy(model)

    chats = llm.chat("", LLMRequest(["a", "b"], max_length=3, top_p=0.5, temperature=0.0))
    pieces = list(llm.stream_chat_oai("c", delta_mode=True))
    vectors = llm.emb("", ["abc", "d"], {"extra": 1})
    scores = llm.emb_rerank("", [("q", "long"), ("q", "x"), ("q", "long")])[0]

    assert [answer.output for answer in chats] == ["echo a", "echo b"]
    assert model.asked[0][3:6] == (3, 0.5, 0.0)
    assert "".join(text for text, _ in pieces) == "echo c"
    assert pieces[-1][1].generated_tokens_count == 2
    assert [vector.output for vector in vectors] == [[3.0, 1.0], [1.0, 1.0]]
    assert model.asked[-2:] == [("abc", {"extra": 1}), ("d", {"extra": 1})]
    assert scores.output == [[("q", "x"), 1.0], [("q", "long"), 0.25], [("q", "long"), 0.25]]


def test_async_callers_get_the_same(deploy: Deploy, model: Plain) -> None:
    llm = deploy(model)

    async def all_of_them() -> list[Any]:
        return [
            (await llm.async_chat_oai("a"))[0].output,
            [text async for text, _ in llm.async_stream_chat_oai("a")],
            (await llm.async_emb("", "abc"))[0].output,
            (await llm.async_emb_rerank("", ("q", "x")))[0].output,
        ]

    for _ in range(3):
        found = asyncio.run(all_of_them())
        assert found == ["echo a", ["echo a"], [3.0, 1.0], [[("q", "x"), 1.0]]]
    if isinstance(model, Async):
        assert len(model.loops) == 1, "what it holds belongs to one loop"


def test_plain_methods_do_not_block_the_loop(deploy: Deploy) -> None:
    model = Plain()
    deploy(model).chat_oai("a")

    assert all(name not in ("MainThread", "byzerllm-portal") for name in model.threads)


def test_token_counts_of_vectors_add_up(deploy: Deploy) -> None:
    rows = deploy(Async()).emb("", ["abc", "d"])

    assert rows[0].metadata["input_tokens_count"] == 4


# -- meta ---------------------------------------------------------------------------------------


def test_meta_says_where_it_runs_and_what_it_says_itself(local: Deploy, hosted: Deploy) -> None:
    at_home, away = local(Plain()).get_meta(""), hosted(Plain()).get_meta("")

    assert at_home["model_deploy_type"] == "proprietary"
    assert (away["model_deploy_type"], away["backend"]) == ("saas", "saas")
    assert at_home["model_name"] == away["model_name"] == "plain"


class OnlyChat:
    def stream_chat(self, *args: Any, **kwargs: Any) -> Any:
        return [("hi", {"metadata": {}})]


def test_a_model_without_meta_cannot_stream_embed_or_rerank(hosted: Deploy) -> None:
    llm = hosted(OnlyChat())

    assert llm.chat_oai("a")[0].output == "hi"
    for call in (
        lambda: list(llm.stream_chat_oai("a")),
        lambda: llm.emb("", "a"),
        lambda: llm.emb_rerank("", ("q", "a")),
    ):
        with pytest.raises(Unsupported):
            call()


def test_what_they_are_made_with(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def init_model(*args: Any) -> Any:
        given.append(args)
        return Plain(), None

    def custom(params: Any) -> Any:
        given.append(params)
        return Plain()

    module(monkeypatch, "byzerllm.made1", init_model=init_model)
    module(monkeypatch, "byzerllm.saas.made2", CustomSaasAPI=custom)
    llm = ByzerLLM()
    params = {"backend.x": 1}

    llm.deploy("/models/x", "made1", "made1", params)
    llm.deploy("", "saas/made2", "made2", {"saas.api_key": "k"})

    path, infer_params, sys_conf = given[0]
    assert (path, infer_params) == ("/models/x", params)
    assert infer_params is not params and sys_conf["UDF_CLIENT"] == "made1"
    assert given[1] == {"saas.api_key": "k"}
    llm.undeploy("made1")
    llm.undeploy("made2")


# -- failures -----------------------------------------------------------------------------------


class TooMany(Exception):
    """As an SDK's error: with a status, and not picklable."""

    def __init__(self, status_code: int) -> None:
        super().__init__("too many requests")
        self.status_code = status_code
        self.lock = threading.Lock()


class Failing(Plain):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error
        self.calls = 0

    def stream_chat(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        raise self.error


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        (RuntimeError("CUDA out of memory"), "RuntimeError: CUDA out of memory", 0),
        (TooMany(400), "TooMany: too many requests", 400),
        (StopIteration("odd"), "StopIteration", 0),
    ],
)
def test_its_errors_are_told_in_ours(
    deploy: Deploy, error: Exception, said: str, status: int
) -> None:
    model = Failing(error)
    llm = deploy(model)

    with pytest.raises(ProviderError, match=said) as caught:
        llm.chat_oai("a")

    import pickle

    assert pickle.loads(pickle.dumps(caught.value)).status == status
    assert model.calls == 1


def test_an_error_of_ours_stays_what_it_is(deploy: Deploy) -> None:
    llm = deploy(Failing(ConfigError("wrong")))

    with pytest.raises(ConfigError, match=r"^wrong$"):
        llm.chat_oai("a")


@pytest.mark.parametrize(
    "answer",
    [None, [], "text", 5, [None], ["text"], [("a",)], [("a", "b")], [("a", {}, 3)], [("a", None)]],
)
def test_an_answer_of_another_shape_is_refused(hosted: Deploy, answer: Any) -> None:
    class Odd(Plain):
        def stream_chat(self, *args: Any, **kwargs: Any) -> Any:
            return answer

    with pytest.raises(ProviderError, match=r"a list of \(text, dictionary\) was due"):
        hosted(Odd()).chat_oai("a")


@pytest.mark.parametrize("vector", [None, 5, ["x"], [[1.0]], (1.0, 2.0), ([1.0], None), ()])
def test_a_vector_of_another_shape_is_refused(hosted: Deploy, vector: Any) -> None:
    class Odd(Plain):
        def embed_query(self, ins: str, extract_params: Any) -> Any:
            return vector

    with pytest.raises(ProviderError, match="a list of numbers was due"):
        hosted(Odd()).emb("", "a")


@pytest.mark.parametrize(
    "rows",
    [
        None,
        5,
        [],
        [1],
        [(("q", "a"), "high")],
        [(("q", "b"), 1.0)],
        [(("q",), 1.0)],
        [(("q", ["a"]), 1.0)],
        [(("q", "a"), 1.0)] * 2,
    ],
)
def test_scores_that_do_not_fit_are_refused(hosted: Deploy, rows: Any) -> None:
    class Odd(Plain):
        def embed_rerank(self, sentence_pairs: Any, extract_params: Any) -> Any:
            return rows

    with pytest.raises(ProviderError, match="model saas/plugin"):
        hosted(Odd()).emb_rerank("", ("q", "a"))


def test_a_failing_constructor_fails_the_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    def custom(params: Any) -> Any:
        raise ValueError("saas.secret_key is missing")

    module(monkeypatch, "byzerllm.saas.broken1", CustomSaasAPI=custom)

    with pytest.raises(DeployError, match=r"saas\.secret_key is missing") as caught:
        ByzerLLM().deploy("", "saas/broken1", "broken1", {})
    assert isinstance(caught.value.__cause__, ValueError)
    assert not ByzerLLM().is_model_exist("broken1")


# -- letting go ---------------------------------------------------------------------------------


class Slow(Plain):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.all_in = threading.Event()
        """Set when three calls run at once."""
        self.running = 0
        self.most = 0

    def stream_chat(self, *args: Any, **kwargs: Any) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        if self.running == 3:
            self.all_in.set()
        self.go.wait(10)
        self.running -= 1
        return [("done", {"metadata": {}})]


def test_a_local_model_never_gets_a_second_call_while_one_runs(local: Deploy) -> None:
    model = Slow()
    llm = local(model)

    for _ in range(2):
        with pytest.raises(CallTimeout):
            llm.chat_oai("a", llm_config={"timeout_s": 0.05})
    model.go.set()

    assert llm.chat_oai("a")[0].output == "done"
    assert model.most == 1


def test_hosted_calls_run_at_once(hosted: Deploy) -> None:
    model = Slow()
    llm = hosted(model)

    async def three() -> list[str]:
        calls = [asyncio.ensure_future(llm.async_chat_oai("a")) for _ in range(3)]
        await asyncio.to_thread(model.all_in.wait, 10)
        model.go.set()
        return [(await call)[0].output for call in calls]

    assert asyncio.run(asyncio.wait_for(three(), 10)) == ["done"] * 3


def test_cancelling_an_async_model_cancels_its_work(deploy: Deploy) -> None:
    class Waiting(Plain):
        stream_chat = None  # type: ignore[assignment]
        cancelled = threading.Event()

        async def async_stream_chat(self, *args: Any, **kwargs: Any) -> Any:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

    model = Waiting()
    llm = deploy(model)

    with pytest.raises(CallTimeout):
        asyncio.run(llm.async_chat_oai("a", llm_config={"timeout_s": 0.05}))

    assert model.cancelled.wait(5)


def test_abort_and_close_reach_it(deploy: Deploy) -> None:
    class Watched(Slow):
        aborted: str = ""
        closed = threading.Event()

        def abort(self, request_id: str) -> None:
            self.aborted = request_id
            self.go.set()

        async def close(self) -> None:
            self.closed.set()

    model = Watched()
    llm = deploy(model)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            llm.chat_oai("a", llm_config={"gen.request_id": "r1"})
        except ByzerError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not model.running:
        pass
    assert llm.abort("r1") is True
    thread.join(5)
    llm.undeploy(llm.default_model_name)

    assert (model.aborted, len(errors)) == ("r1", 1)
    assert model.closed.wait(5)
