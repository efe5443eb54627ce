"""From what a user names to the engine that runs it."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from byzerllm.errors import ConfigError, ModelFileError, NotYet
from byzerllm.types.data import InferBackend
from byzerllm.types.engine import Engine

EngineMaker = Callable[[], Engine]
ModelType = str | Engine | type[Engine]

_LATER = {
    InferBackend.Transformers: "transformers",
    InferBackend.VLLM: "vllm",
    InferBackend.DeepSpeed: "deepspeed",
}


def engine_maker(
    model_path: str,
    model_type: ModelType,
    infer_params: Mapping[str, Any],
    sys_conf: Mapping[str, Any],
    *,
    backend_chosen: bool,
    slots: int | None,
) -> EngineMaker:
    """How to make one engine for this model; called once for each worker.

    Raises:
        ConfigError: nothing of that name exists; the message says what does.
        NotYet: an engine that a later release brings.
    """
    if isinstance(model_type, Engine):
        return lambda: model_type
    if isinstance(model_type, type) and issubclass(model_type, Engine):
        return model_type
    if not isinstance(model_type, str) or not model_type:
        raise ConfigError(
            f"pretrained_model_type={model_type!r} is not a type of model; write 'saas/openai', "
            "'custom/auto' or another name, or give an Engine"
        )
    family, _, rest = model_type.partition("/")
    if family == "saas":
        return _hosted(rest, infer_params)
    name = rest if family == "custom" and rest else model_type
    backend = str(sys_conf.get("infer_backend"))
    if name == "auto":
        return _auto(model_path, infer_params, backend, backend_chosen, slots)
    if backend in (InferBackend.VLLM, InferBackend.DeepSpeed):
        raise ConfigError(
            f"The backend {backend} takes pretrained_model_type='custom/auto', not {model_type!r}"
        )
    return _plugin(model_path, name, infer_params, sys_conf)


def _auto(
    model_path: str,
    infer_params: Mapping[str, Any],
    backend: str,
    backend_chosen: bool,
    slots: int | None,
) -> EngineMaker:
    if not model_path:
        raise ConfigError("model_path is empty; give the path of a model, such as a .gguf file")
    is_gguf = Path(model_path).suffix.lower() == ".gguf"
    if backend == InferBackend.LLAMA_CPP or (is_gguf and not backend_chosen):
        from byzerllm.engines.llama_cpp import LlamaCpp

        return lambda: LlamaCpp(model_path, infer_params, slots)
    if not backend_chosen and not Path(model_path).expanduser().exists():
        raise ModelFileError(f"{model_path} does not exist; give the path of a .gguf file")
    engine = _LATER.get(backend, backend)
    raise NotYet(
        f"The {engine} engine comes with a later release. This one runs .gguf files "
        "(setup_infer_backend('llama_cpp')) and hosted models ('saas/openai')"
    )


def _hosted(name: str, infer_params: Mapping[str, Any]) -> EngineMaker:
    module = _module(f"byzerllm.saas.{name}", name)
    make = getattr(module, "CustomSaasAPI", None)
    if make is None:
        raise ConfigError(f"byzerllm.saas.{name} has no CustomSaasAPI")

    def engine() -> Engine:
        model = make(dict(infer_params))
        if isinstance(model, Engine):
            return model
        from byzerllm.engines.plugin import Plugin

        return Plugin(model, None, f"saas/{name}", saas=True)

    return engine


def _plugin(
    model_path: str, name: str, infer_params: Mapping[str, Any], sys_conf: Mapping[str, Any]
) -> EngineMaker:
    module = _module(f"byzerllm.{name}", name)
    init_model = getattr(module, "init_model", None)
    if init_model is None:
        raise ConfigError(f"byzerllm.{name} is not a type of model: it has no init_model")

    def engine() -> Engine:
        model, tokenizer = init_model(model_path, dict(infer_params), dict(sys_conf))
        if isinstance(model, Engine):
            return model
        from byzerllm.engines.plugin import Plugin

        return Plugin(model, tokenizer, name, saas=False)

    return engine


def _module(path: str, name: str) -> Any:
    """Import the module of a model type; a name that is no module is the user's slip."""
    if all(part.isidentifier() for part in name.split("/")) and "/" not in name:
        try:
            return importlib.import_module(path)
        except ModuleNotFoundError as error:
            if error.name != path:
                raise ConfigError(
                    f"The model type {name!r} needs the package {error.name}"
                ) from error
    raise ConfigError(
        f"There is no model type {name!r}. Hosted models: {', '.join(providers())} "
        "('saas/openai' with saas.base_url for any server that speaks its format); "
        "local ones: 'custom/auto' with a .gguf file"
    )


def providers() -> list[str]:
    """The types of hosted models that there are files for."""
    package = importlib.util.find_spec("byzerllm.saas")
    folders = package.submodule_search_locations if package else None
    found = (module.name for module in pkgutil.iter_modules(folders or ()))
    return [f"saas/{name}" for name in sorted(found) if name != "compatible"]
