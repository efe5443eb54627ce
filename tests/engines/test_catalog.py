"""What a user may name as a type of model, and what the answer to a slip says."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from byzerllm import saas
from byzerllm.engines.catalog import engine_maker, providers
from byzerllm.engines.llama_cpp import LlamaCpp
from byzerllm.engines.plugin import Plugin
from byzerllm.errors import ConfigError, NotYet
from byzerllm.saas.openai import CustomSaasAPI
from byzerllm.testing import ScriptedModel
from byzerllm.types import InferBackend
from byzerllm.types.engine import Engine


def make(
    model_type: Any,
    path: str = "/models/x",
    backend: str = InferBackend.Transformers,
    chosen: bool = False,
    **params: Any,
) -> Engine:
    given = {key.replace("__", "."): value for key, value in params.items()}
    conf = {"infer_backend": backend}
    return engine_maker(path, model_type, given, conf, backend_chosen=chosen, slots=None)()


def test_an_engine_is_taken_as_it_is_and_a_class_is_called() -> None:
    model = ScriptedModel("a")

    assert make(model) is model
    assert isinstance(make(ScriptedModel), ScriptedModel)


def test_a_hosted_model_is_found_by_its_file() -> None:
    assert isinstance(make("saas/openai", saas__api_key="k"), CustomSaasAPI)
    assert "saas/openai" in providers() and "saas/compatible" not in providers()


@pytest.fixture
def on_the_path() -> Iterator[Callable[[Path], None]]:
    """Have the providers of another folder found."""
    before, loaded = list(saas.__path__), set(sys.modules)
    yield lambda folder: saas.__path__.append(str(folder))
    saas.__path__[:] = before
    for name in set(sys.modules) - loaded:
        if name.startswith("byzerllm.saas."):
            del sys.modules[name]


def test_a_provider_put_on_the_path_is_found(
    tmp_path: Path, on_the_path: Callable[[Path], None]
) -> None:
    (tmp_path / "added_here.py").write_text(
        "class CustomSaasAPI:\n"
        "    def __init__(self, infer_params):\n"
        "        self.infer_params = infer_params\n"
    )
    on_the_path(tmp_path)

    engine = make("saas/added_here", saas__x=1)

    assert isinstance(engine, Plugin)
    assert engine.model.infer_params == {"saas.x": 1}
    assert "saas/added_here" in providers()


@pytest.mark.parametrize("name", ["custom/mine", "mine"])
def test_a_model_type_is_found_with_and_without_its_family(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = types.ModuleType("byzerllm.mine")
    found.init_model = lambda *given: (object(), None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "byzerllm.mine", found)

    engine = make(name)

    assert isinstance(engine, Plugin) and engine.name == "mine"


def test_a_plug_in_may_bring_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ScriptedModel("a")
    found = types.ModuleType("byzerllm.mine")
    found.init_model = lambda *given: (model, None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "byzerllm.mine", found)

    assert make("mine") is model


@pytest.mark.parametrize(
    ("backend", "chosen"), [(InferBackend.Transformers, False), (InferBackend.LLAMA_CPP, True)]
)
def test_a_gguf_file_goes_to_llama_cpp(backend: str, chosen: bool) -> None:
    assert isinstance(make("custom/auto", "/models/x.GGUF", backend, chosen), LlamaCpp)


def test_a_chosen_backend_wins_over_the_name_of_the_file() -> None:
    with pytest.raises(NotYet, match="The transformers engine comes with a later release"):
        make("custom/auto", "/models/x.gguf", InferBackend.Transformers, True)


@pytest.mark.parametrize("backend", [InferBackend.VLLM, InferBackend.DeepSpeed])
def test_some_backends_take_only_auto(backend: str) -> None:
    with pytest.raises(ConfigError, match="takes pretrained_model_type='custom/auto'"):
        make("custom/llama2", backend=backend)


@pytest.mark.parametrize(
    "name",
    [
        "saas/",
        "saas/nobody",
        "saas/../openai",
        "saas/open ai",
        "saas/openai/extra",
        "custom/nothing",
        "nothing",
        "a.b",
        "custom/",
        "/",
    ],
)
def test_an_unknown_type_is_named_with_what_there_is(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no model type .*saas/openai.*custom/auto"):
        make(name)


@pytest.mark.parametrize("name", ["", None, 5, object, ["saas/openai"]])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="is not a type of model"):
        make(name)


@pytest.mark.parametrize("name", ["saas/compatible", "custom/errors", "errors"])
def test_a_module_of_another_kind_is_no_model(name: str) -> None:
    with pytest.raises(ConfigError, match=r"has no (CustomSaasAPI|init_model)"):
        make(name)


def test_a_package_that_a_plug_in_lacks_is_named(
    tmp_path: Path, on_the_path: Callable[[Path], None]
) -> None:
    (tmp_path / "lacking.py").write_text("import surely_not_installed\n")
    on_the_path(tmp_path)

    with pytest.raises(ConfigError, match="needs the package surely_not_installed"):
        make("saas/lacking", saas__api_key="k")


def test_auto_needs_a_path() -> None:
    with pytest.raises(ConfigError, match="model_path is empty"):
        make("custom/auto", "")
