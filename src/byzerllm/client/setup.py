"""The state of a client and every ``setup_*``; each of them returns the client itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from byzerllm.client.settings import VIEWED, SettingsTable
from byzerllm.errors import ConfigError
from byzerllm.events.hooks import Hooks
from byzerllm.runtime.slots import BALANCES
from byzerllm.templates import HELPFUL_ASSISTANT
from byzerllm.types.data import InferBackend

if TYPE_CHECKING:
    from typing_extensions import Self

    from byzerllm.templates import Template

_SYS_CONF = {
    "pythonMode": "ray",
    "maxConcurrency": 1,
    "num_gpus": 1,
    "masterMaxConcurrency": 1000,
    "workerMaxConcurrency": 1,
    "infer_backend": InferBackend.Transformers,
}
_BACKEND_CONCURRENCY = {
    InferBackend.VLLM: (1000, 100),
    InferBackend.DeepSpeed: (1000, 100),
    InferBackend.Transformers: (1000, 1),
    InferBackend.LLAMA_CPP: (1000, 8),
}
_PINS = ("embedding", "tokenizer", "apply_chat_template", "meta")
Formatter = Callable[..., str]


class Setup:
    """What a client holds, and how it is set."""

    if TYPE_CHECKING:  # the views over the settings, one for each entry of VIEWED
        mapping_auto_use_apply_chat_template: MutableMapping[str, bool]
        mapping_max_input_length: MutableMapping[str, int]
        mapping_max_output_length: MutableMapping[str, int]
        mapping_max_model_length: MutableMapping[str, int]
        mapping_role_mapping: MutableMapping[str, dict[str, Any]]
        mapping_extra_generation_params: MutableMapping[str, dict[str, Any]]
        mapping_clean_func: MutableMapping[str, Callable[[str], str]]
        mapping_function_calling_format_func: MutableMapping[str, Formatter]
        mapping_response_class_format_func: MutableMapping[str, Formatter]
        mapping_response_class_format_after_chat_func: MutableMapping[str, Formatter]
        mapping_impl_func_format_func: MutableMapping[str, Formatter]
        mapping_base_system_message: MutableMapping[str, str]
        mapping_sys_response_class_format_func: MutableMapping[str, Formatter]
        mapping_sys_function_calling_format_func: MutableMapping[str, Formatter]
        mapping_sys_response_class_format_after_chat_func: MutableMapping[str, Formatter]
        mapping_sys_impl_func_format_func: MutableMapping[str, Formatter]

    def __init__(
        self,
        url: str | None = None,
        *,
        verbose: bool = False,
        force_skip_context_length_check: bool = False,
        byzer_engine_url: str | None = None,
        default_max_output_length: int = 1024,
    ) -> None:
        self.url = url
        self.verbose = verbose
        self.force_skip_context_length_check = force_skip_context_length_check
        self.byzer_engine_url = byzer_engine_url
        self.default_max_output_length = default_max_output_length
        self.default_sys_conf: dict[str, Any] = dict(_SYS_CONF)
        self.sys_conf: dict[str, Any] = dict(_SYS_CONF)
        self.default_model_name: str | None = None
        self.default_emb_model_name: str | None = None
        self.default_rerank_model_name: str | None = None
        self.default_role_mapping: dict[str, Any] = {
            "user_role": "User:",
            "assistant_role": "Assistant:",
            "system_msg": HELPFUL_ASSISTANT,
        }
        self.pin_model_worker_mapping: dict[str, int] | None = None
        self.func_impl_cache: dict[Any, Any] = {}
        self.meta_cache: dict[str, dict[str, Any]] = {}
        self._meta_generations: dict[str, int] = {}
        self._settings = SettingsTable()
        self._chosen: set[str] = set()
        self._hooks = Hooks()
        self.on = self._hooks.on
        for name in VIEWED:
            setattr(self, f"mapping_{name}", self._settings.view(name))

    # -- deployment -------------------------------------------------------------------------

    def setup(self, name: str, value: Any) -> Self:
        """Set one entry of ``sys_conf``."""
        self.sys_conf[name] = value
        self._chosen.add(name)
        return self

    def setup_reset(self) -> Self:
        """Put ``sys_conf`` back to its defaults."""
        self.sys_conf = dict(self.default_sys_conf)
        self._chosen.clear()
        return self

    def setup_infer_backend(self, backend: str) -> Self:
        """Choose the engine of the next deployments: a name of ``InferBackend``.

        Sets the concurrency that suits it, whatever was set before.
        """
        if backend not in _BACKEND_CONCURRENCY:
            raise ConfigError(
                f"Unknown backend {backend!r}; choose one of {', '.join(_BACKEND_CONCURRENCY)}"
            )
        master, worker = _BACKEND_CONCURRENCY[backend]
        self.sys_conf["infer_backend"] = backend
        self.sys_conf["masterMaxConcurrency"] = master
        self.sys_conf["workerMaxConcurrency"] = worker
        self._chosen -= {"masterMaxConcurrency", "workerMaxConcurrency"}
        self._chosen.add("infer_backend")
        return self

    def setup_gpus_per_worker(self, num_gpus: float) -> Self:
        """GPUs that each worker needs."""
        return self.setup("num_gpus", _number("num_gpus", num_gpus, float))

    def setup_cpus_per_worker(self, num_cpus: float) -> Self:
        """CPUs that each worker needs."""
        return self.setup("num_cpus", _number("num_cpus", num_cpus, float))

    def setup_num_workers(self, num_workers: int) -> Self:
        """How many workers (engines) a deployment has."""
        return self.setup("maxConcurrency", _at_least_one("num_workers", num_workers))

    def setup_worker_concurrency(self, num: int) -> Self:
        """How many calls one worker takes at once."""
        return self.setup("workerMaxConcurrency", _at_least_one("num", num))

    def setup_load_balance_way(self, load_balance_way: str) -> Self:
        """``lru`` (the worker idle for longest), ``round_robin`` or ``least_loaded``."""
        if load_balance_way not in BALANCES:
            raise ConfigError(
                f"Unknown load balance {load_balance_way!r}; choose one of {', '.join(BALANCES)}"
            )
        return self.setup("load_balance", load_balance_way)

    def setup_pin_model_worker_mapping(self, pin_model_worker_mapping: Mapping[str, int]) -> Self:
        """Send a kind of request to one worker: ``{"embedding": 0, "tokenizer": 1}``."""
        for kind, worker in pin_model_worker_mapping.items():
            if kind not in _PINS:
                raise ConfigError(f"Unknown kind of request {kind!r}; known are {', '.join(_PINS)}")
            if not isinstance(worker, int):
                raise ConfigError(f"The worker for {kind!r} is an index, not {worker!r}")
        self.pin_model_worker_mapping = dict(pin_model_worker_mapping)
        return self

    # -- names ------------------------------------------------------------------------------

    def setup_default_model_name(self, model_name: str) -> Self:
        """The model that calls without a model name go to."""
        self.default_model_name = model_name
        return self

    def setup_default_emb_model_name(self, model_name: str) -> Self:
        """The same for ``emb`` and ``emb_query``."""
        self.default_emb_model_name = model_name
        return self

    def setup_default_re_rank_model_name(self, model_name: str) -> Self:
        """The same for ``emb_rerank``."""
        self.default_rerank_model_name = model_name
        return self

    # -- one model --------------------------------------------------------------------------

    def setup_max_model_length(self, model: str, max_model_length: int | None) -> Self:
        """Refuse calls whose input and output together exceed this many tokens."""
        self._settings[model].max_model_length = _length("max_model_length", max_model_length)
        return self

    def setup_max_input_length(self, model: str, max_input_length: int | None) -> Self:
        """Refuse calls whose input exceeds this many tokens."""
        self._settings[model].max_input_length = _length("max_input_length", max_input_length)
        return self

    def setup_max_output_length(self, model: str, max_output_length: int | None) -> Self:
        """Cap the reply of ``model`` at this many tokens."""
        self._settings[model].max_output_length = _length("max_output_length", max_output_length)
        return self

    def get_max_model_length(self, model: str) -> int | None:
        return self._settings.peek(model).max_model_length

    def get_max_input_length(self, model: str) -> int | None:
        return self._settings.peek(model).max_input_length

    def get_max_output_length(self, model: str) -> int:
        found = self._settings.peek(model).max_output_length
        return self.default_max_output_length if found is None else found

    def setup_role_mapping(self, model: str, role_mapping: dict[str, Any]) -> Self:
        """The words around the messages of a text-format model; replaces what was set."""
        self._settings[model].role_mapping = role_mapping
        return self

    def setup_extra_generation_params(
        self, model: str, extra_generation_params: Mapping[str, Any]
    ) -> Self:
        """Settings for every call to ``model``; merged into those that were set before."""
        settings = self._settings[model]
        before = settings.extra_generation_params or {}
        settings.extra_generation_params = {**before, **extra_generation_params}
        return self

    def setup_fallback_models(self, model: str, fallbacks: list[str]) -> Self:
        """Models asked in turn when ``model`` fails and trying it again does not help.

        They get the request as it is, so they must take the same kind of input.
        """
        self._settings[model].fallbacks = tuple(fallbacks)
        return self

    def setup_max_retries(self, model: str, max_retries: int) -> Self:
        """How often a call is tried again where that is safe: full, rate-limited, unreachable."""
        self._settings[model].max_retries = max_retries
        return self

    def setup_function_calling_format_func(self, model: str, func: Formatter) -> Self:
        """Put the question and the tools into words: ``func(prompt, tools, tool_choice)``."""
        self._settings[model].function_calling_format_func = func
        return self

    def setup_response_class_format_func(self, model: str, func: Formatter) -> Self:
        """Put the question and the answer's class into words: ``func(prompt, cls)``."""
        self._settings[model].response_class_format_func = func
        return self

    def setup_response_class_format_after_chat_func(self, model: str, func: Formatter) -> Self:
        """Ask for the previous answer as this class: ``func(cls)``."""
        self._settings[model].response_class_format_after_chat_func = func
        return self

    def setup_impl_func_format_func(self, model: str, func: Formatter) -> Self:
        """Ask for an implementation: ``func(prompt, function, cls)``."""
        self._settings[model].impl_func_format_func = func
        return self

    def setup_sys_function_calling_format_func(self, model: str, func: Formatter) -> Self:
        """The short form, used with the default system message."""
        self._settings[model].sys_function_calling_format_func = func
        return self

    def setup_sys_response_class_format_func(self, model: str, func: Formatter) -> Self:
        """The short form, used with the default system message."""
        self._settings[model].sys_response_class_format_func = func
        return self

    def setup_sys_response_class_format_after_chat_func(self, model: str, func: Formatter) -> Self:
        """The short form, used with the default system message."""
        self._settings[model].sys_response_class_format_after_chat_func = func
        return self

    def setup_sys_impl_func_format_func(self, model: str, func: Formatter) -> Self:
        """The short form, used with the default system message."""
        self._settings[model].sys_impl_func_format_func = func
        return self

    def setup_base_system_messages(self, model: str, base_system_message: str) -> Self:
        """The default system message of ``model``."""
        self._settings[model].base_system_message = base_system_message
        return self

    def _apply_template(self, model: str, template: Template) -> None:
        settings = self._settings[model]
        settings.auto_use_apply_chat_template = None
        settings.role_mapping = template.role_mapping
        self.setup_extra_generation_params(model, template.generation_config)
        settings.clean_func = template.clean_func
        settings.function_calling_format_func = template.function_calling_format_func
        settings.response_class_format_func = template.response_class_format_func
        settings.response_class_format_after_chat_func = (
            template.response_class_format_after_chat_func
        )
        settings.impl_func_format_func = template.impl_func_format_func

    # -- what was chosen --------------------------------------------------------------------

    def _was_chosen(self, name: str) -> bool:
        """Did the user set this entry of ``sys_conf``, rather than we?"""
        if name in self._chosen:
            return True
        backend = self.sys_conf.get("infer_backend")
        ours = dict(self.default_sys_conf)
        if "infer_backend" in self._chosen:
            master, worker = _BACKEND_CONCURRENCY.get(str(backend), (None, None))
            ours.update(masterMaxConcurrency=master, workerMaxConcurrency=worker)
        return bool(self.sys_conf.get(name) != ours.get(name))


def _at_least_one(name: str, value: int) -> int:
    if (number := _number(name, value, int)) < 1:
        raise ConfigError(f"{name}={value!r}; at least 1 is needed")
    return int(number)


def _number(name: str, value: Any, kind: type[int | float]) -> float:
    """A number, also where it comes as text from a command line."""
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{name}={value!r} is not a number") from None


def _length(name: str, value: int | None) -> int | None:
    return None if value is None else int(_number(name, value, int))
