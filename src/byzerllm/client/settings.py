"""What a client knows of each of its models, and the ``mapping_*`` views of earlier releases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class ModelSettings:
    """What the user set for one model; the defaults are what a new model gets.

    Lengths are in tokens. Formatters are ``None`` where the standard ones serve.
    """

    auto_use_apply_chat_template: bool | None = None
    """Render conversations with the model's own chat template."""
    max_input_length: int | None = None
    max_output_length: int | None = None
    max_model_length: int | None = None
    role_mapping: dict[str, Any] | None = None
    extra_generation_params: dict[str, Any] | None = None
    clean_func: Callable[[str], str] | None = None
    function_calling_format_func: Callable[..., str] | None = None
    response_class_format_func: Callable[..., str] | None = None
    response_class_format_after_chat_func: Callable[..., str] | None = None
    impl_func_format_func: Callable[..., str] | None = None
    base_system_message: str | None = None
    sys_response_class_format_func: Callable[..., str] | None = None
    sys_function_calling_format_func: Callable[..., str] | None = None
    sys_response_class_format_after_chat_func: Callable[..., str] | None = None
    sys_impl_func_format_func: Callable[..., str] | None = None
    fallbacks: tuple[str, ...] = ()
    """Models asked in turn when this one fails for good."""
    max_retries: int | None = None


@dataclass
class SettingsTable:
    """The settings of all models, by name."""

    by_model: defaultdict[str, ModelSettings] = field(
        default_factory=lambda: defaultdict(ModelSettings)
    )

    def __getitem__(self, model: str) -> ModelSettings:
        return self.by_model[model]

    def peek(self, model: str) -> ModelSettings:
        """The settings of a model, without making an entry for it."""
        return self.by_model.get(model) or _DEFAULTS

    def view(self, name: str) -> MutableMapping[str, Any]:
        """One setting of all models, as a dictionary that can be written."""
        return SettingView(self.by_model, name)


_DEFAULTS = ModelSettings()
VIEWED = tuple(
    entry.name for entry in fields(ModelSettings) if entry.name not in ("fallbacks", "max_retries")
)
"""The settings that have a ``mapping_<name>`` attribute on the client."""


class SettingView(MutableMapping[str, Any]):
    """``client.mapping_<setting>``: reads and writes the records of :class:`SettingsTable`."""

    def __init__(self, by_model: defaultdict[str, ModelSettings], name: str) -> None:
        self._by_model = by_model
        self._name = name

    def __getitem__(self, model: str) -> Any:
        settings = self._by_model.get(model)
        value = getattr(settings, self._name, None)
        if value is None:
            raise KeyError(model)
        return value

    def __setitem__(self, model: str, value: Any) -> None:
        setattr(self._by_model[model], self._name, value)

    def __delitem__(self, model: str) -> None:
        self[model]
        setattr(self._by_model[model], self._name, None)

    def __iter__(self) -> Iterator[str]:
        return (
            model
            for model, settings in list(self._by_model.items())
            if getattr(settings, self._name) is not None
        )

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))
