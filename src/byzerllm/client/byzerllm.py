"""``ByzerLLM``: deploy, call, watch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, cast

from byzerllm.client.deploying import Deploying
from byzerllm.client.effects import (
    Await,
    Steps,
    adrive,
    adrive_stream,
    drive,
    drive_stream,
)
from byzerllm.client.pipeline import run, run_stream
from byzerllm.client.streaming import Presenter
from byzerllm.client.wire import from_item, read_pairs, to_item, to_row
from byzerllm.errors import ConfigError, NotYet, Unsupported
from byzerllm.events.hooks import Hooks, Installable, Subscription, read_kinds, scope
from byzerllm.types.data import (
    EventCallback,
    EventName,
    LLMHistoryItem,
    LLMRequest,
    LLMResponse,
    SingleOutputMeta,
)
from byzerllm.types.records import (
    GENERATION_KINDS,
    Embed,
    Generate,
    Message,
    RenderChat,
    Reply,
    Request,
    Rerank,
)

if TYPE_CHECKING:
    from typing_extensions import Self

Conversation = str | Sequence[Mapping[str, Any] | LLMHistoryItem]
Settings = Mapping[str, Any] | None
CallHooks = Sequence[Installable] | None

_OLD_EVENTS = {
    EventName.BEFORE_CALL_MODEL: "old_before",
    EventName.AFTER_CALL_MODEL: "old_after",
}
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


class ByzerLLM(Deploying):
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
        llm.setup_default_model_name(name)
        llm.setup_default_emb_model_name(name)
        return llm

    # -- chat_oai ---------------------------------------------------------------------------

    def chat_oai(
        self,
        conversations: Conversation,
        tools: Sequence[Any] | None = None,
        tool_choice: Any = None,
        execute_tool: bool = False,
        impl_func: Callable[..., Any] | None = None,
        execute_impl_func: bool = False,
        impl_func_params: Mapping[str, Any] | None = None,
        func_params: Mapping[str, Any] | None = None,
        response_class: Any = None,
        response_after_chat: bool = False,
        enable_default_sys_message: bool = False,
        model: str | None = None,
        role_mapping: Mapping[str, Any] | None = None,
        llm_config: Settings = None,
        *,
        only_return_prompt: bool = False,
        extra_request_params: Settings = None,
        max_retries: int = 0,
        hooks: CallHooks = None,
    ) -> list[LLMResponse]:
        """Send a conversation in OpenAI's shape; the reply's text is ``[0].output``.

        Args:
            conversations: messages (dictionaries with ``role`` and ``content``), or a text,
                which is one user message.
            model: a deployed model; the default model if left out.
            role_mapping: the words around messages, for text-format models.
            llm_config: settings of this call: ``temperature``, ``max_length`` (new tokens),
                ``gen.stop`` …
            only_return_prompt: do not call the model; ``[0].input`` holds the request.
            hooks: bundles of handlers for this call only.
        """
        self._plain_only(tools, tool_choice, impl_func, response_class, execute_tool)
        self._plain_message_only(enable_default_sys_message)
        return drive(
            self._chat_oai(
                conversations,
                model,
                role_mapping,
                self._merged(llm_config, extra_request_params),
                hooks,
                only_return_prompt=only_return_prompt,
            )
        )

    async def async_chat_oai(
        self,
        conversations: Conversation,
        tools: Sequence[Any] | None = None,
        tool_choice: Any = None,
        execute_tool: bool = False,
        impl_func: Callable[..., Any] | None = None,
        execute_impl_func: bool = False,
        impl_func_params: Mapping[str, Any] | None = None,
        func_params: Mapping[str, Any] | None = None,
        response_class: Any = None,
        response_after_chat: bool = False,
        enable_default_sys_message: bool = False,
        model: str | None = None,
        role_mapping: Mapping[str, Any] | None = None,
        llm_config: Settings = None,
        *,
        only_return_prompt: bool = False,
        extra_request_params: Settings = None,
        max_retries: int = 0,
        hooks: CallHooks = None,
    ) -> list[LLMResponse]:
        """``chat_oai`` for async callers."""
        self._plain_only(tools, tool_choice, impl_func, response_class, execute_tool)
        self._plain_message_only(enable_default_sys_message)
        return await adrive(
            self._chat_oai(
                conversations,
                model,
                role_mapping,
                self._merged(llm_config, extra_request_params),
                hooks,
                only_return_prompt=only_return_prompt,
                is_async=True,
            )
        )

    @staticmethod
    def _plain_only(
        tools: Any, tool_choice: Any, impl_func: Any, response_class: Any, execute_tool: bool
    ) -> None:
        if response_class is not None and (tools or tool_choice is not None):
            raise ConfigError("response_class and tools do not go together; choose one")
        if impl_func is not None and response_class is None:
            raise ConfigError("impl_func needs a response_class for what the function returns")
        asked = {
            "tools": tools or tool_choice is not None or execute_tool,
            "response_class": response_class is not None,
            "impl_func": impl_func is not None,
        }
        for name, given in asked.items():
            if given:
                raise NotYet(
                    f"chat_oai({name}=…) comes with a later release; plain conversations work now"
                )

    @staticmethod
    def _plain_message_only(enable_default_sys_message: bool) -> None:
        if enable_default_sys_message:
            raise NotYet("chat_oai(enable_default_sys_message=True) comes with a later release")

    @staticmethod
    def _merged(llm_config: Settings, extra: Settings) -> dict[str, Any]:
        return {
            **(llm_config or {}),
            **{f"gen.{key}": value for key, value in (extra or {}).items()},
        }

    def _chat_oai(
        self,
        conversations: Conversation,
        model: str | None,
        role_mapping: Mapping[str, Any] | None,
        llm_config: Settings,
        hooks: CallHooks,
        *,
        only_return_prompt: bool = False,
        is_async: bool = False,
    ) -> Steps[list[LLMResponse]]:
        name = self._model(model)
        messages = read_conversation(conversations)
        meta = yield from self._meta(name)
        request = yield from self._request(name, messages, role_mapping, llm_config, meta)
        if only_return_prompt:
            return [LLMResponse(output="", input=to_item(request))]
        call = self._call(
            "chat_oai", name, [request], hooks=own_hooks(hooks), is_async=is_async, meta=meta
        )
        replies = yield from run(call)
        return self._responses(name, call.items(), replies)

    def _request(
        self,
        model: str,
        messages: list[Message],
        role_mapping: Mapping[str, Any] | None,
        llm_config: Settings,
        meta: Mapping[str, Any],
    ) -> Steps[Generate]:
        """The conversation as the model takes it: messages, or one text."""
        params = self._params(model, llm_config)
        if takes_messages(meta):
            return Generate(model, messages=messages, params=params)
        text = yield from self._text(model, messages, role_mapping)
        return Generate(model, prompt=text, params=params)

    def _text(
        self, model: str, messages: list[Message], role_mapping: Mapping[str, Any] | None
    ) -> Steps[str]:
        settings = self._settings.peek(model)
        if settings.auto_use_apply_chat_template and role_mapping is None:
            call = self._call("apply_chat_template", model, [RenderChat(model, messages)])
            (reply,) = yield from run(call)
            return str(reply.value)
        from byzerllm.templates import render_conversation

        return render_conversation(
            messages, role_mapping or settings.role_mapping or self.default_role_mapping
        )

    def generate_instruction_from_history(
        self,
        model: str,
        conversations: Conversation,
        role_mapping: Mapping[str, Any] | None = None,
    ) -> str:
        """The one text that a text-format model reads for a conversation."""
        messages = read_conversation(conversations)
        mapping = role_mapping
        if mapping is None and not self._settings.peek(model).auto_use_apply_chat_template:
            mapping = {"user_role": "User:", "assistant_role": "Assistant:"}
        elif self._settings.peek(model).auto_use_apply_chat_template:
            mapping = None
        return drive(self._text(model, messages, mapping))

    def _responses(
        self, model: str, items: list[dict[str, Any]], replies: list[Reply]
    ) -> list[LLMResponse]:
        clean = self._settings.peek(model).clean_func
        responses = []
        for item, reply in zip(items, replies, strict=True):
            row = to_row(item, reply)
            output = row["predict"]
            if clean is not None and isinstance(output, str):
                output = clean(output)
            responses.append(LLMResponse(output, row.get("input", item), row.get("metadata") or {}))
        return responses

    # -- streams ----------------------------------------------------------------------------

    def stream_chat_oai(
        self,
        conversations: Conversation,
        model: str | None = None,
        role_mapping: Mapping[str, Any] | None = None,
        llm_config: Settings = None,
        *,
        delta_mode: bool = False,
        extra_request_params: Settings = None,
        hooks: CallHooks = None,
    ) -> Iterator[tuple[str, SingleOutputMeta]]:
        """The reply while it is written, as ``(text, metadata)``.

        ``text`` is all there is so far, or with ``delta_mode=True`` what is new. Closing the
        iterator stops the model.
        """
        name = self._model(model)
        messages = read_conversation(conversations)
        steps = self._stream(name, messages, role_mapping, llm_config, extra_request_params, hooks)
        return self._present(drive_stream(steps), name, delta_mode)

    def async_stream_chat_oai(
        self,
        conversations: Conversation,
        role_mapping: Mapping[str, Any] | None = None,
        model: str | None = None,
        llm_config: Settings = None,
        *,
        delta_mode: bool = False,
        extra_request_params: Settings = None,
        hooks: CallHooks = None,
    ) -> AsyncIterator[tuple[str, SingleOutputMeta]]:
        """``stream_chat_oai`` for async callers; mind the other order of arguments."""
        name = self._model(model)
        messages = read_conversation(conversations)
        steps = self._stream(
            name, messages, role_mapping, llm_config, extra_request_params, hooks, is_async=True
        )
        return self._apresent(adrive_stream(steps), name, delta_mode)

    def _stream(
        self,
        name: str,
        messages: list[Message],
        role_mapping: Mapping[str, Any] | None,
        llm_config: Settings,
        extra: Settings,
        hooks: CallHooks,
        *,
        is_async: bool = False,
    ) -> Steps[Reply]:
        meta = yield from self._meta(name)
        if not meta.get("support_stream"):
            raise Unsupported(f"{name} cannot stream; use chat_oai")
        config = {**self._merged(llm_config, extra), "generation.stream": True}
        request = yield from self._request(name, messages, role_mapping, config, meta)
        call = self._call(
            "stream_chat_oai",
            name,
            [request],
            hooks=own_hooks(hooks),
            stream=True,
            is_async=is_async,
            meta=meta,
        )
        return (yield from run_stream(call))

    def _present(
        self, chunks: Iterator[Any], model: str, delta_mode: bool
    ) -> Iterator[tuple[str, SingleOutputMeta]]:
        presenter = Presenter(self._stream_clean(model), delta_mode=delta_mode)
        try:
            for chunk in chunks:
                yield from presenter.feed(chunk)
            yield from presenter.finish()
        finally:
            chunks.close()  # type: ignore[attr-defined]

    async def _apresent(
        self, chunks: AsyncIterator[Any], model: str, delta_mode: bool
    ) -> AsyncIterator[tuple[str, SingleOutputMeta]]:
        presenter = Presenter(self._stream_clean(model), delta_mode=delta_mode)
        try:
            async for chunk in chunks:
                for pair in presenter.feed(chunk):
                    yield pair
            for pair in presenter.finish():
                yield pair
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]

    def _stream_clean(self, model: str) -> Callable[[str], str] | None:
        clean = self._settings.peek(model).clean_func
        if clean is None:
            return None
        from byzerllm.templates import identity

        return None if clean is identity else clean

    # -- chat, raw_chat ---------------------------------------------------------------------

    def chat(
        self, model: str | None, request: LLMRequest | str, extract_params: Settings = None
    ) -> list[LLMResponse]:
        """Ask with one instruction or a list of them; one response each, in order."""
        return drive(self._chat("chat", model, request, extract_params))

    async def async_chat(
        self, model: str | None, request: LLMRequest | str, extract_params: Settings = None
    ) -> list[LLMResponse]:
        """``chat`` for async callers."""
        return await adrive(self._chat("chat", model, request, extract_params, is_async=True))

    def raw_chat(
        self, model: str | None, request: LLMRequest | str, extract_params: Settings = None
    ) -> list[LLMResponse]:
        """The same as ``chat``."""
        return drive(self._chat("raw_chat", model, request, extract_params))

    async def async_raw_chat(
        self, model: str | None, request: LLMRequest | str, extract_params: Settings = None
    ) -> list[LLMResponse]:
        """``raw_chat`` for async callers."""
        return await adrive(self._chat("raw_chat", model, request, extract_params, is_async=True))

    def _chat(
        self,
        method: str,
        model: str | None,
        request: LLMRequest | str,
        extract_params: Settings,
        *,
        is_async: bool = False,
    ) -> Steps[list[LLMResponse]]:
        name = self._model(model)
        asked = LLMRequest(request) if isinstance(request, str) else request
        if not isinstance(asked, LLMRequest):
            raise ConfigError(
                f"{method} takes a text or an LLMRequest, not {type(request).__name__}"
            )
        texts = asked.instruction if isinstance(asked.instruction, list) else [asked.instruction]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ConfigError(f"{method} takes a text or a list of texts as its instruction")
        length, cap = asked.max_length, self._settings.peek(name).max_output_length
        params = {
            "max_length": length if cap is None else min(length, cap),
            "top_p": asked.top_p,
            "temperature": asked.temperature,
            **self._params(name, extract_params),
        }
        meta = yield from self._meta(name)
        requests: list[Request] = []
        for text in texts:
            if takes_messages(meta):
                message = {"role": "user", "content": text}
                requests.append(Generate(name, messages=[message], params=params))
            else:
                prompt = yield from self._chat_text(name, text)
                requests.append(Generate(name, prompt=prompt, params=params))
        call = self._call(method, name, requests, is_async=is_async, history=False, meta=meta)
        replies = yield from run(call)
        return self._responses(name, call.items(), replies)

    def _chat_text(self, model: str, instruction: str) -> Steps[str]:
        settings = self._settings.peek(model)
        if settings.auto_use_apply_chat_template:
            return (yield from self._text(model, [{"role": "user", "content": instruction}], None))
        from byzerllm.templates import render_chat

        return render_chat(instruction, settings.role_mapping or self.default_role_mapping)

    # -- vectors and scores -----------------------------------------------------------------

    def emb_query(self, v: str, model: str | None = None) -> list[LLMResponse]:
        """The vector of one text."""
        return drive(self._emb("emb_query", model, LLMRequest(instruction=v), None))

    async def async_emb_query(self, v: str, model: str | None = None) -> list[LLMResponse]:
        """``emb_query`` for async callers."""
        steps = self._emb("emb_query", model, LLMRequest(instruction=v), None, is_async=True)
        return await adrive(steps)

    def emb(
        self,
        model: str | None,
        request: LLMRequest | str | Sequence[str],
        extract_params: Settings = None,
    ) -> list[LLMResponse]:
        """The vectors of texts: one response per text, in order, ``output`` a list of floats."""
        return drive(self._emb("emb", model, request, extract_params))

    async def async_emb(
        self,
        model: str | None,
        request: LLMRequest | str | Sequence[str],
        extract_params: Settings = None,
    ) -> list[LLMResponse]:
        """``emb`` for async callers."""
        return await adrive(self._emb("emb", model, request, extract_params, is_async=True))

    def _emb(
        self,
        method: str,
        model: str | None,
        request: LLMRequest | str | Sequence[str],
        extract_params: Settings,
        *,
        is_async: bool = False,
    ) -> Steps[list[LLMResponse]]:
        name = model or self.default_emb_model_name
        if not name:
            raise ConfigError(
                "No embedding model is named; pass model=… or call setup_default_emb_model_name"
            )
        given = request.instruction if isinstance(request, LLMRequest) else request
        texts = [given] if isinstance(given, str) else list(given)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ConfigError("emb takes a text or a list of texts, with at least one")
        params = dict(extract_params or {})
        call = self._call(method, name, [Embed(name, texts, params)], is_async=is_async)
        (reply,) = yield from run(call)
        vectors = reply.value
        if not isinstance(vectors, list) or len(vectors) != len(texts):
            raise ConfigError(f"A hook answered emb with something else than {len(texts)} vectors")
        metadata = reply.metadata()
        return [
            LLMResponse(vector, to_item(Embed(name, [text], params)), dict(metadata))
            for text, vector in zip(texts, vectors, strict=True)
        ]

    def emb_rerank(
        self,
        model: str | None = None,
        sentence_pairs: Any = None,
        extract_params: Settings = None,
    ) -> list[LLMResponse]:
        """Score ``(query, passage)`` pairs; ``[0].output`` is ``[[pair, score], …]``, best first.

        ``[0].metadata["indices"]`` gives their places in the input.
        """
        return drive(self._emb_rerank(model, sentence_pairs, extract_params))

    async def async_emb_rerank(
        self,
        model: str | None = None,
        sentence_pairs: Any = None,
        extract_params: Settings = None,
    ) -> list[LLMResponse]:
        """``emb_rerank`` for async callers."""
        return await adrive(self._emb_rerank(model, sentence_pairs, extract_params, is_async=True))

    def _emb_rerank(
        self, model: str | None, pairs: Any, extract_params: Settings, *, is_async: bool = False
    ) -> Steps[list[LLMResponse]]:
        name = model or self.default_rerank_model_name
        if not name:
            raise ConfigError(
                "No rerank model is named; pass model=… or call setup_default_re_rank_model_name"
            )
        request = Rerank(name, read_pairs(pairs), dict(extract_params or {}))
        call = self._call("emb_rerank", name, [request], is_async=is_async)
        (reply,) = yield from run(call)
        scores = reply.value
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        output = [[request.pairs[place], scores[place]] for place in order]
        metadata = {**reply.metadata(), "indices": order}
        return [LLMResponse(output, to_item(request), metadata)]

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
            shown = zip(items[start:stop], replies, strict=False)
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
    llm: ByzerLLM, conversations: Conversation | None = None, llm_config: Settings = None
) -> list[LLMResponse]:
    """``llm.chat_oai`` as a function."""
    return llm.chat_oai(conversations=conversations or [], llm_config=llm_config)


def own_hooks(bundles: CallHooks) -> Hooks | None:
    return Hooks(*bundles) if bundles else None


def takes_messages(meta: Mapping[str, Any]) -> bool:
    """Does a model with this meta read messages rather than one text?"""
    return meta.get("model_deploy_type") == "saas" or bool(meta.get("message_format"))


def read_conversation(conversations: Conversation) -> list[Message]:
    """Messages as they are sent: copies, without their ``metadata``.

    Raises:
        ConfigError: empty, an unknown role, or content that is neither text nor parts.
    """
    if isinstance(conversations, str):
        conversations = [{"role": "user", "content": conversations}]
    if not isinstance(conversations, (list, tuple)) or not conversations:
        raise ConfigError(
            "The conversation is empty; give a text or a list of messages "
            "such as {'role': 'user', 'content': '…'}"
        )
    return [_read_message(number, message) for number, message in enumerate(conversations)]


def _read_message(number: int, message: Any) -> Message:
    if isinstance(message, LLMHistoryItem):
        message = {"role": message.role, "content": message.content}
    if not isinstance(message, Mapping):
        raise ConfigError(
            f"Message {number} is a {type(message).__name__}; a dictionary with role and "
            "content was due"
        )
    role = message.get("role")
    if role not in _ROLES:
        raise ConfigError(
            f"Message {number} has the role {role!r}; known are {', '.join(sorted(_ROLES))}"
        )
    content = message.get("content")
    if not isinstance(content, (str, list)) and not (
        content is None and (role == "assistant" or "tool_calls" in message)
    ):
        raise ConfigError(
            f"The content of message {number} is a {type(content).__name__}; "
            "a text or a list of parts was due"
        )
    return {key: value for key, value in message.items() if key != "metadata"}


def _runs(requests: list[Request]) -> Iterator[tuple[int, int]]:
    """Stretches of requests of one kind (all generations count as one)."""
    start = 0
    for place in range(1, len(requests) + 1):
        if place == len(requests) or _family(requests[place]) != _family(requests[start]):
            yield start, place
            start = place


def _family(request: Request) -> str:
    return "generation" if request.kind in GENERATION_KINDS else request.kind
