"""``ByzerLLM``: deploy, call, watch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, cast

from byzerllm.client.chatting import Chatting
from byzerllm.client.conversation import Conversation, takes_messages
from byzerllm.client.effects import Await, Steps, adrive, drive
from byzerllm.client.pipeline import run
from byzerllm.client.vectors import Vectors
from byzerllm.client.wire import from_item, to_row
from byzerllm.errors import ConfigError, NotYetAttribute
from byzerllm.events.hooks import Hooks, Installable, Subscription, read_kinds, scope
from byzerllm.types.data import EventCallback, EventName, LLMResponse
from byzerllm.types.records import Request

if TYPE_CHECKING:
    from typing_extensions import Self

_LATER = frozenset(
    {
        *("prompt", "response", "impl", "clear_impl_cache", "run_tools"),
        *("execute_function_calling", "execute_generate_func", "execute_response_format"),
        *("sft", "pretrain", "merge_lora", "raw_sft", "raw_pretrain", "raw_merge_lora"),
        *("raw_deepspeed_to_huggingface", "apply_sql_func"),
        *("setup_sub_client", "get_sub_client", "remove_sub_client", "metadata"),
    }
)
_OLD_EVENTS = {
    EventName.BEFORE_CALL_MODEL: "old_before",
    EventName.AFTER_CALL_MODEL: "old_after",
}


class ByzerLLM(Chatting, Vectors):
    """One object through which a program deploys, calls and watches any language model.

    ::

        llm = ByzerLLM()
        llm.deploy("", "saas/openai", "gpt", {"saas.api_key": key, "saas.model": "gpt-4o"})
        llm.setup_default_model_name("gpt")
        llm.chat_oai([{"role": "user", "content": "Name the capital of Germany."}])[0].output

    Args:
        url: address of a cluster; without it models run in this process and are shared by all
            clients of the process.
        verbose: print what is sent to models.
        force_skip_context_length_check: do not count tokens before a call.
        byzer_engine_url: where ``apply_sql_func`` goes.
        default_max_output_length: new tokens of a reply unless something else is set.
    """

    @classmethod
    def local(cls, model: str = "smollm2", *, pull: bool = True, **options: Any) -> Self:
        """A client with a bundled model deployed on this machine, and set as its default.

        ``model`` is a name that ``byzerllm models`` lists, or the path of a ``.gguf`` file.
        A listed model that is not here yet is fetched first (``pull=False``: an error instead).
        """
        from byzerllm import models

        path = models.path_or_pull(model) if pull else models.path(model)
        name = models.short_name(model)
        llm = cls(**options)
        if not llm.is_model_exist(name):
            llm.setup_infer_backend("llama_cpp").deploy(str(path), "custom/auto", name)
        llm.setup_extra_generation_params(name, models.settings_of(model))
        llm.setup_default_model_name(name)
        llm.setup_default_emb_model_name(name)
        return llm

    if not TYPE_CHECKING:  # type checkers should go on finding misspelt names

        def __getattr__(self, name: str) -> Any:
            if name in _LATER:
                raise NotYetAttribute(f"ByzerLLM.{name} comes with a later release")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # -- the old doors ----------------------------------------------------------------------

    def _query(self, model: str, input_value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Send request items as they are; one ``{"predict", "input", "metadata"}`` each."""
        return drive(self._query_steps(model, input_value))

    async def async_query(
        self, model: str, input_value: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """``_query`` for async callers."""
        return await adrive(self._query_steps(model, input_value, is_async=True))

    def _query_steps(
        self, model: str, items: list[dict[str, Any]], *, is_async: bool = False
    ) -> Steps[list[dict[str, Any]]]:
        name = self._model(model)
        if not isinstance(items, list) or not items:
            raise ConfigError("_query takes a list of request items, with at least one")
        meta: Mapping[str, Any] = {}
        if not all(isinstance(item, Mapping) and item.get("meta") for item in items):
            meta = yield from self._meta(name)
        requests = [from_item(item, name, message_format=takes_messages(meta)) for item in items]
        rows: list[dict[str, Any]] = []
        for start, stop in _runs(requests):
            part = requests[start:stop]
            call = self._call("_query", name, part, is_async=is_async, meta=meta)
            replies = yield from run(call)
            shown = zip(items[start:stop], replies, strict=True)
            rows += [to_row(dict(item), reply) for item, reply in shown]
        return rows

    def abort(self, request_id: str, model: str | None = None) -> bool:
        """End a running generation by the ``gen.request_id`` it was sent with.

        Its caller gets ``CallAborted``. False if no such call runs.
        """
        return drive(self._abort(request_id, model))

    async def async_abort(self, request_id: str, model: str | None = None) -> bool:
        """``abort`` for async callers."""
        return await adrive(self._abort(request_id, model))

    def _abort(self, request_id: str, model: str | None) -> Steps[bool]:
        name, runtime = self._model(model), self._runtime
        found: bool = yield Await(lambda: runtime.abort(request_id, name))
        return found

    # -- handlers ---------------------------------------------------------------------------

    def add_event_callback(
        self,
        event_name: EventName,
        callback: EventCallback,
        *,
        kinds: Sequence[str] | str | None = None,
    ) -> Self:
        """Add a callback ``(llm, model, items) -> (go_on, value)``, in the order of adding.

        ``(True, None)`` goes on, ``(True, new)`` replaces the list, ``(False, answer)`` is the
        result, ``(False, None)`` refuses the call. Generations only, unless ``kinds`` says
        otherwise. ``llm.on`` is the newer, typed form.
        """
        if event_name not in _OLD_EVENTS:
            raise ConfigError(f"{event_name!r} is not one of {', '.join(map(str, EventName))}")
        if not callable(callback):
            raise ConfigError(f"{callback!r} is not callable")
        event = _OLD_EVENTS[event_name]
        self._hooks.add(Subscription(event, callback, "guard", read_kinds(kinds)))
        return self

    def remove_event_callback(self, event_name: EventName, callback: EventCallback) -> Self:
        """Remove a callback that was added; no error if it was not."""
        for subscription in self._hooks.get(_OLD_EVENTS[event_name]):
            if subscription.handler == callback:
                subscription.remove()
        return self

    @property
    def event_callbacks(self) -> dict[EventName, list[EventCallback]]:
        """The callbacks of ``add_event_callback``, in order."""
        return {
            event: [cast("EventCallback", found.handler) for found in self._hooks.get(name)]
            for event, name in _OLD_EVENTS.items()
        }

    def hooks(self, *bundles: Installable) -> AbstractContextManager[Hooks]:
        """Handlers for the calls of this client inside a ``with`` block.

        ::

            with llm.hooks(HumanModel(surface="terminal")):
                llm.chat_oai(conversation)   # a person is asked
        """
        return scope(self, Hooks(*bundles))


def default_chat_wrapper(
    llm: ByzerLLM,
    conversations: Conversation | None = None,
    llm_config: Mapping[str, Any] | None = None,
) -> list[LLMResponse]:
    """``llm.chat_oai`` as a function."""
    return llm.chat_oai(conversations=conversations or [], llm_config=llm_config)


def _runs(requests: list[Request]) -> Iterator[tuple[int, int]]:
    """Stretches of requests of one kind: handlers are chosen by it."""
    start = 0
    for place in range(1, len(requests) + 1):
        if place == len(requests) or requests[place].kind != requests[start].kind:
            yield start, place
            start = place
