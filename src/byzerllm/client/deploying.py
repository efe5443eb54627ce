"""Bringing models up and down, and asking what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm.client.call import Call, Limits
from byzerllm.client.conversation import read_conversation
from byzerllm.client.effects import Await, Steps, adrive, drive
from byzerllm.client.pipeline import run
from byzerllm.client.setup import Setup
from byzerllm.errors import ConfigError, ModelNotFound
from byzerllm.events.hooks import Hooks, Scopes, current_scopes, handlers_for
from byzerllm.runtime.choose import choose
from byzerllm.types.data import LLMResponse
from byzerllm.types.records import Meta, RenderChat, Request, Tokenize
from byzerllm.types.sampling import bare, merged

if TYPE_CHECKING:
    from byzerllm.engines.catalog import ModelType
    from byzerllm.runtime.base import Runtime
    from byzerllm.templates import Template

DEFAULT_TIMEOUT = 1800.0
"""Seconds a call may take in its models where ``timeout_s`` says nothing else."""

_PIN_OF = {
    "embed": "embedding",
    "rerank": "embedding",
    "tokenize": "tokenizer",
    "render_chat": "apply_chat_template",
    "meta": "meta",
}


class Deploying(Setup):
    """The part of the client that knows deployments."""

    @property
    def _runtime(self) -> Runtime:
        return choose(self.url)

    # -- up and down ------------------------------------------------------------------------

    def deploy(
        self,
        model_path: str,
        pretrained_model_type: ModelType,
        udf_name: str,
        infer_params: Mapping[str, Any] | None = None,
        *,
        replace: bool = False,
    ) -> dict[str, Any]:
        """Bring a model up under a name; when this returns it can answer.

        Args:
            model_path: a file or folder; empty for hosted models.
            pretrained_model_type: ``saas/<provider>``, ``custom/auto``, or a plug-in's name. An
                ``Engine`` (or a class of engines) of your own is taken too.
            udf_name: the name that calls use.
            infer_params: ``saas.x`` for providers, ``backend.x`` for engines.
            replace: take the place of a model of that name, without a gap.

        Returns:
            What ``get_meta`` says of it.

        Raises:
            ModelExists: the name is taken.
            DeployError, ProviderError, ConfigError …: the real reason why it cannot answer.
        """
        return drive(
            self._deploy(model_path, pretrained_model_type, udf_name, infer_params, replace)
        )

    async def async_deploy(
        self,
        model_path: str,
        pretrained_model_type: ModelType,
        udf_name: str,
        infer_params: Mapping[str, Any] | None = None,
        *,
        replace: bool = False,
    ) -> dict[str, Any]:
        """``deploy`` for async callers."""
        return await adrive(
            self._deploy(model_path, pretrained_model_type, udf_name, infer_params, replace)
        )

    def _deploy(
        self,
        model_path: str,
        model_type: ModelType,
        name: str,
        infer_params: Mapping[str, Any] | None,
        replace: bool,
    ) -> Steps[dict[str, Any]]:
        if not name or not isinstance(name, str):
            raise ConfigError(f"udf_name={name!r}; give the model a name")
        from byzerllm.engines.catalog import engine_maker
        from byzerllm.runtime.base import DeploySpec

        self.sys_conf["UDF_CLIENT"] = name
        hosted = isinstance(model_type, str) and model_type.startswith("saas/")
        if not hosted:
            self._check_gpus()
        slots = (
            int(self.sys_conf["workerMaxConcurrency"])
            if self._was_chosen("workerMaxConcurrency")
            else None
        )
        spec = DeploySpec(
            name=name,
            make_engine=engine_maker(
                model_path,
                model_type,
                infer_params or {},
                self.sys_conf,
                backend_chosen=self._was_chosen("infer_backend"),
                slots=slots,
            ),
            workers=int(self.sys_conf["maxConcurrency"]),
            per_worker=slots,
            max_waiting=int(self.sys_conf["masterMaxConcurrency"]),
            balance=str(self.sys_conf.get("load_balance", "lru")),
        )
        runtime = self._runtime
        yield Await(lambda: runtime.deploy(spec, replace=replace))
        self.meta_cache.pop(name, None)
        return dict((yield from self._meta(name)))

    def _check_gpus(self) -> None:
        """GPUs asked for explicitly must be there; the default of one is only a wish."""
        wanted = self.sys_conf.get("num_gpus") or 0
        if "num_gpus" not in self._chosen or not wanted:
            return
        present = len(list(Path("/dev").glob("nvidia[0-9]*")))
        if present < wanted:
            raise ConfigError(
                f"setup_gpus_per_worker({wanted}) was asked for and this machine has {present} "
                "GPUs; leave it out, or set 0, to run on the CPU"
            )

    def undeploy(self, udf_name: str, force: bool = False) -> None:
        """Stop a model and free its resources; calls in flight end with ``CallAborted``."""
        drive(self._undeploy(udf_name))

    async def async_undeploy(self, udf_name: str, force: bool = False) -> None:
        """``undeploy`` for async callers."""
        await adrive(self._undeploy(udf_name))

    def _undeploy(self, name: str) -> Steps[None]:
        runtime = self._runtime
        yield Await(lambda: runtime.undeploy(name))
        self.meta_cache.pop(name, None)

    def is_model_exist(self, udf_name: str) -> bool:
        """Is a model of this name deployed?"""
        return self._runtime.exists(udf_name)

    # -- what it is -------------------------------------------------------------------------

    def get_meta(self, model: str, llm_config: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a model is and can do; an empty name means the default model."""
        return dict(drive(self._meta(self._model(model), llm_config)))

    async def async_get_meta(
        self, model: str, llm_config: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """``get_meta`` for async callers."""
        return dict(await adrive(self._meta(self._model(model), llm_config, is_async=True)))

    def _meta(
        self, model: str, llm_config: Mapping[str, Any] | None = None, *, is_async: bool = False
    ) -> Steps[dict[str, Any]]:
        runtime = self._runtime
        generation = runtime.generation(model)
        found = self.meta_cache.get(model)
        if found and generation and self._meta_generations.get(model) == generation:
            return found
        request = Meta(model, dict(llm_config or {}))
        call = self._call("get_meta", model, [request], is_async=is_async)
        (reply,) = yield from run(call)
        meta = reply.value
        if isinstance(meta, dict) and meta and reply.by == "model":
            self.meta_cache[model] = meta
            self._meta_generations[model] = generation
        return meta if isinstance(meta, dict) else {}

    def tokenize(
        self, model: str | None, s: str, llm_config: Mapping[str, Any] | None = None
    ) -> list[LLMResponse]:
        """The token ids of a text: one response, ``output == [[id, id, …]]``."""
        return drive(self._tokenize(model, s, llm_config))

    async def async_tokenize(
        self, model: str | None, s: str, llm_config: Mapping[str, Any] | None = None
    ) -> list[LLMResponse]:
        """``tokenize`` for async callers."""
        return await adrive(self._tokenize(model, s, llm_config, is_async=True))

    def _tokenize(
        self,
        model: str | None,
        s: str,
        llm_config: Mapping[str, Any] | None,
        *,
        is_async: bool = False,
    ) -> Steps[list[LLMResponse]]:
        name = self._model(model)
        if not isinstance(s, str):
            raise ConfigError(f"tokenize takes a text, not {type(s).__name__}")
        request = Tokenize(name, s, self._params(name, llm_config))
        call = self._call("tokenize", name, [request], is_async=is_async)
        (reply,) = yield from run(call)
        item = {"instruction": s, "tokenizer": True}
        return [LLMResponse(output=[reply.value], input=item, metadata=reply.metadata())]

    def apply_chat_template(
        self, model: str | None, s: str, llm_config: Mapping[str, Any] | None = None
    ) -> str:
        """Render a message list (as JSON text) with the model's own chat template.

        The result ends with what makes the model answer.
        """
        return drive(self._apply_chat_template(model, s, llm_config))

    async def async_apply_chat_template(
        self, model: str | None, s: str, llm_config: Mapping[str, Any] | None = None
    ) -> str:
        """``apply_chat_template`` for async callers."""
        return await adrive(self._apply_chat_template(model, s, llm_config, is_async=True))

    def _apply_chat_template(
        self,
        model: str | None,
        s: str,
        llm_config: Mapping[str, Any] | None,
        *,
        is_async: bool = False,
    ) -> Steps[str]:
        name = self._model(model)
        try:
            messages = json.loads(s) if isinstance(s, str) else s
        except ValueError as error:
            raise ConfigError(
                f"apply_chat_template takes messages as JSON text: {error}"
            ) from error
        request = RenderChat(name, read_conversation(messages), self._params(name, llm_config))
        call = self._call("apply_chat_template", name, [request], is_async=is_async)
        (reply,) = yield from run(call)
        return str(reply.value)

    def setup_template(self, model: str, template: Template | str) -> Deploying:
        """How to talk to a text-format model.

        ``"auto"`` uses the model's own chat template where it has one (and nothing where the
        model takes messages anyway); another text names one of ``Templates``.
        """
        if template == "auto":
            drive(self._auto_template(model))
            return self
        if isinstance(template, str):
            from byzerllm.templates import template_named

            template = template_named(template)
        if not hasattr(template, "role_mapping"):
            raise ConfigError(f"{template!r} is no Template; use Templates.qwen() or 'auto'")
        self._apply_template(model, template)
        return self

    def _auto_template(self, model: str) -> Steps[None]:
        meta = yield from self._meta(model)
        if meta.get("model_deploy_type") == "saas" or meta.get("message_format"):
            return
        if "QWenLMHeadModel" in (meta.get("architectures") or []):
            from byzerllm.templates import Templates

            self._apply_template(model, Templates.qwen())
        elif meta.get("support_chat_template"):
            self._settings[model].auto_use_apply_chat_template = True
        else:
            raise ConfigError(
                f"{model} carries no chat template; choose one: "
                "setup_template(model, Templates.qwen())"
            )

    # -- calls ------------------------------------------------------------------------------

    def _call(
        self,
        method: str,
        model: str,
        requests: list[Request],
        *,
        hooks: Hooks | None = None,
        stream: bool = False,
        is_async: bool = False,
        history: bool = True,
        meta: Mapping[str, Any] | None = None,
        scopes: Scopes | None = None,
    ) -> Call:
        """A call as the pipeline takes it, with everything that was set for its model."""
        settings = self._settings.peek(model)
        kind = requests[0].kind
        generates = kind in ("chat", "completion")
        timeout = _timeout_of(requests)
        retries = settings.max_retries
        if retries is None:
            retries = int((meta or {}).get("max_retries", 2))
        pins = self.pin_model_worker_mapping or {}
        pin = pins.get(_PIN_OF.get(kind, ""))
        call = Call(
            llm=self,
            runtime=self._runtime,
            model=model,
            method=method,
            requests=requests,
            handlers=handlers_for(
                self, self._hooks, hooks, kind, current_scopes() if scopes is None else scopes
            ),
            verbose=self.verbose,
            stream=stream,
            is_async=is_async,
            history=history,
            timeout=DEFAULT_TIMEOUT if timeout is None else timeout,
            max_retries=retries,
            fallbacks=settings.fallbacks if generates else (),
            pins={kind: pin} if pin is not None else {},
            default_budget=self.get_max_output_length(model) if generates else None,
        )
        limited = (settings.max_input_length, settings.max_model_length)
        if generates and limited != (None, None) and not self.force_skip_context_length_check:
            call.limits = Limits(*limited, self.get_max_output_length(model))
            if "tokenizer" in pins:
                call.pins = {**call.pins, "tokenize": pins["tokenizer"]}
        if not self._runtime.exists(model):
            raise ModelNotFound(model, self._runtime.names())
        return call

    def _model(self, model: str | None) -> str:
        name = model or self.default_model_name
        if not name:
            raise ConfigError("No model is named; pass model=… or call setup_default_model_name")
        return name

    def _params(
        self, model: str, llm_config: Mapping[str, Any] | None, *more: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """The model's extra generation params, then the caller's, which win."""
        for given in (llm_config, *more):
            if given is not None and not isinstance(given, Mapping):
                raise ConfigError(
                    f"Settings are a dictionary, not {type(given).__name__}: {given!r}"
                )
        return merged(self._settings.peek(model).extra_generation_params, llm_config, *more)


def _timeout_of(requests: list[Request]) -> float | None:
    """The largest ``timeout_s`` among the requests."""
    found = []
    for request in requests:
        for key, value in request.params.items():
            if bare(key) == "timeout_s" and value is not None:
                try:
                    found.append(float(value))
                except (TypeError, ValueError):
                    raise ConfigError(f"{key}={value!r} is not a number of seconds") from None
    return max(found) if found else None
