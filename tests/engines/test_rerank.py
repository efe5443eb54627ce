"""Rerankers and embedding models through llama.cpp, tiny ones with random weights."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_gguf import CONTEXT, WIDTH, tiny_bert

from byzerllm import ByzerLLM
from byzerllm.errors import ConfigError, DeployError, LengthError, Unsupported
from byzerllm.runtime.choose import choose

GERMANY = "what is the capital of germany"
PASSAGES = ["the cat sat on the mat", "berlin", "a river flows", "paris is blue", "it rains today"]
PAIRS = [(GERMANY, passage) for passage in PASSAGES]
CLOSE = 0.01  # texts read in one batch differ in the third place: GELU comes from a table of halves


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def reranker(folder: Path) -> Path:
    return tiny_bert(folder / "reranker.gguf", pooling="rank", classifier=True)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Path:
    return tiny_bert(folder / "encoder.gguf", pooling="cls")


@pytest.fixture(scope="module")
def llm(reranker: Path, encoder: Path) -> Iterator[ByzerLLM]:
    llm = ByzerLLM().setup_default_re_rank_model_name("rank").setup_default_emb_model_name("emb")
    llm.deploy(str(reranker), "custom/auto", "rank", {"backend.pooling": "rank"})
    llm.deploy(str(encoder), "custom/auto", "emb")
    yield llm
    llm.undeploy("rank")
    llm.undeploy("emb")


def scores(llm: ByzerLLM, pairs: Any, model: str = "rank") -> dict[Any, float]:
    return {tuple(pair): score for pair, score in llm.emb_rerank(model, pairs)[0].output}


def starts(name: str) -> int:
    """How many processes the engine has used up."""
    return int(choose(None).deployment(name).workers[0].engine._child.starts)  # type: ignore[attr-defined]


def near(one: list[float], other: list[float]) -> bool:
    return one == pytest.approx(other, abs=CLOSE)


# -- scores -----------------------------------------------------------------------------------


def test_pairs_come_back_with_their_scores_best_first(llm: ByzerLLM) -> None:
    response = llm.emb_rerank(sentence_pairs=PAIRS)[0]

    found = [score for _, score in response.output]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == len(PAIRS)
    assert [pair for pair, _ in response.output] == [
        PAIRS[place] for place in response.metadata["indices"]
    ]
    assert sorted(response.metadata["indices"]) == list(range(len(PAIRS)))


def test_one_pair_needs_no_list(llm: ByzerLLM) -> None:
    alone = llm.emb_rerank("rank", PAIRS[1])[0]

    ((pair, score),) = alone.output
    assert (tuple(pair), alone.metadata["indices"]) == (PAIRS[1], [0])
    assert score == pytest.approx(scores(llm, PAIRS)[PAIRS[1]], abs=CLOSE)


def test_a_pair_scores_the_same_in_any_order_and_company(llm: ByzerLLM) -> None:
    together = scores(llm, PAIRS)

    assert scores(llm, PAIRS[::-1]) == pytest.approx(together, abs=CLOSE)
    assert scores(llm, PAIRS[2:4]) == pytest.approx(
        {pair: together[pair] for pair in PAIRS[2:4]}, abs=CLOSE
    )
    many = [llm.emb_rerank("rank", PAIRS * 20)[0].output for _ in range(2)]
    for output in many:
        assert len(output) == 20 * len(PAIRS)
        assert all(score == pytest.approx(together[pair], abs=CLOSE) for pair, score in output)


def test_several_questions_may_stand_in_one_list(llm: ByzerLLM) -> None:
    asked = [GERMANY, "where is rome", "who is it"]
    mixed = [(query, passage) for passage in PASSAGES for query in asked]

    together = scores(llm, mixed)

    for query in asked:
        alone = scores(llm, [(query, passage) for passage in PASSAGES])
        assert alone == pytest.approx({pair: together[pair] for pair in alone}, abs=CLOSE)


def test_the_question_matters_and_not_only_the_passage(llm: ByzerLLM) -> None:
    found = scores(llm, [(GERMANY, "berlin"), ("the cat", "berlin"), ("berlin", GERMANY)])
    assert len({round(score, 3) for score in found.values()}) == 3


def test_the_async_twin_gives_the_same(llm: ByzerLLM) -> None:
    async def ask() -> list[Any]:
        calls = [llm.async_emb_rerank("rank", PAIRS) for _ in range(12)]
        return [responses[0] for responses in await asyncio.gather(*calls)]

    expected = llm.emb_rerank("rank", PAIRS)[0]
    for response in asyncio.run(ask()):
        assert response.metadata["indices"] == expected.metadata["indices"]
        assert near([s for _, s in response.output], [s for _, s in expected.output])


def test_empty_and_unknown_texts_have_scores_too(llm: ByzerLLM) -> None:
    found = scores(llm, [("", ""), (GERMANY, ""), ("", "berlin"), (GERMANY, "東京 🦊 \x00")])
    assert len(found) == 4


@pytest.mark.parametrize("pairs", [[], None, "text", [("a",)], [("a", 1)], [("a", "b", "c")]])
def test_what_is_no_pair_is_refused(llm: ByzerLLM, pairs: Any) -> None:
    with pytest.raises(ConfigError, match="pair"):
        llm.emb_rerank("rank", pairs)


def test_a_passage_may_be_as_long_as_the_model_reads_and_no_longer(llm: ByzerLLM) -> None:
    long = "cat " * (CONTEXT - 10)
    assert llm.emb_rerank("rank", ("the cat", long))[0].output
    with pytest.raises(LengthError, match=rf"has \d+ tokens, and the model reads {CONTEXT} "):
        llm.emb_rerank("rank", [*PAIRS, ("the cat", long + long)])
    assert starts("rank") == 1


def test_its_meta_says_that_it_writes_nothing(llm: ByzerLLM) -> None:
    for name in ("rank", "emb"):
        meta = llm.get_meta(name)
        assert meta["architectures"] == ["bert"]
        assert meta["model_name"] == "Tiny Bert"
        assert meta["embedding_mode"] is True
        assert meta["max_model_len"] == CONTEXT
        for ability in ("support_stream", "message_format", "support_assistant_prefix"):
            assert meta[ability] is False


def test_a_reranker_is_known_by_its_file(reranker: Path) -> None:
    llm = ByzerLLM()
    llm.deploy(str(reranker), "custom/auto", "unasked")
    try:
        assert scores(llm, PAIRS, "unasked")
    finally:
        llm.undeploy("unasked")


# -- what they cannot do ----------------------------------------------------------------------


def test_a_reranker_refuses_to_write_and_goes_on(llm: ByzerLLM) -> None:
    with pytest.raises(Unsupported, match=r"writes no text; it is a model for emb_rerank"):
        llm.chat_oai("hello", model="rank")
    with pytest.raises(Unsupported, match=r"writes no text; it is a model for emb_rerank"):
        llm.chat("rank", "hello")
    with pytest.raises(Unsupported):
        list(llm.stream_chat_oai("hello", model="rank"))
    with pytest.raises(Unsupported, match="no embeddings"):
        llm.emb("rank", "hello")
    assert llm.emb_rerank("rank", PAIRS)[0].output
    assert starts("rank") == 1


def test_an_embedding_model_refuses_to_write_and_to_rank(llm: ByzerLLM) -> None:
    with pytest.raises(Unsupported, match=r"writes no text; it is a model for emb$"):
        llm.chat_oai("hello", model="emb")
    with pytest.raises(Unsupported):
        list(llm.stream_chat_oai("hello", model="emb"))
    with pytest.raises(Unsupported, match="not deployed as a reranker"):
        llm.emb_rerank("emb", PAIRS)
    assert llm.emb("emb", "hello")[0].output
    assert starts("emb") == 1


def test_a_model_without_a_classifier_is_no_reranker(encoder: Path) -> None:
    with pytest.raises(ConfigError, match="no classifier"):
        ByzerLLM().deploy(str(encoder), "custom/auto", "bad", {"backend.pooling": "rank"})
    with pytest.raises(ConfigError, match="'wild'; use one of none, mean, cls, last, rank"):
        ByzerLLM().deploy(str(encoder), "custom/auto", "bad", {"backend.pooling": "wild"})
    assert not ByzerLLM().is_model_exist("bad")


def test_a_tensor_that_is_missing_is_named(reranker: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(reranker.read_bytes().replace(b"token_embd.weight", b"token_emxx.weight"))
    with pytest.raises(DeployError, match=r"tensor 'token_embd.weight' not found"):
        ByzerLLM().deploy(str(broken), "custom/auto", "broken")


# -- vectors ----------------------------------------------------------------------------------


def test_every_text_has_its_vector_in_any_company(llm: ByzerLLM) -> None:
    vectors = [response.output for response in llm.emb("emb", PASSAGES)]

    assert all(len(vector) == WIDTH for vector in vectors)
    assert all(sum(x * x for x in vector) == pytest.approx(1, abs=1e-3) for vector in vectors)
    for passage, vector in zip(PASSAGES, vectors, strict=True):
        assert near(llm.emb_query(passage)[0].output, vector)
    backwards = [response.output for response in llm.emb("emb", PASSAGES[::-1] * 10)]
    for place, vector in enumerate(backwards):
        assert near(vector, vectors[::-1][place % len(PASSAGES)])


def test_async_vectors_are_the_same(llm: ByzerLLM) -> None:
    async def ask() -> list[Any]:
        calls = [llm.async_emb("emb", PASSAGES) for _ in range(8)]
        return await asyncio.gather(*calls)

    expected = [response.output for response in llm.emb("emb", PASSAGES)]
    for responses in asyncio.run(ask()):
        assert all(near(r.output, vector) for r, vector in zip(responses, expected, strict=True))


def test_vectors_are_pooled_as_the_file_says_unless_told_otherwise(
    llm: ByzerLLM, encoder: Path, folder: Path
) -> None:
    silent = tiny_bert(folder / "silent.gguf")  # the same weights
    ways = {
        "as-cls": (encoder, {"backend.pooling": "cls"}),
        "as-mean": (encoder, {"backend.pooling": "mean"}),
        "unsaid": (silent, {}),
    }
    vectors = {}
    for name, (path, settings) in ways.items():
        llm.deploy(str(path), "custom/auto", name, settings)
        vectors[name] = llm.emb(name, GERMANY)[0].output
        llm.undeploy(name)

    own = llm.emb("emb", GERMANY)[0].output  # the file says cls
    assert near(own, vectors["as-cls"])
    assert not near(own, vectors["as-mean"])
    assert near(vectors["unsaid"], vectors["as-mean"])


def test_a_text_may_be_as_long_as_the_model_reads_and_no_longer(llm: ByzerLLM) -> None:
    long = "dog " * (CONTEXT - 2)  # and a token before and behind it
    assert len(llm.emb("emb", [long, "dog"])) == 2
    with pytest.raises(LengthError, match=rf"has \d+ tokens, and the model reads {CONTEXT} "):
        llm.emb("emb", ["dog", long + "dog"])
    assert starts("emb") == 1


def test_their_tokens_are_the_files_own(llm: ByzerLLM) -> None:
    ids = llm.tokenize("emb", "The cat, sat.")[0].output[0]
    assert (ids[0], ids[-1]) == (2, 3)  # [CLS] and [SEP]
    assert len(ids) == 7
