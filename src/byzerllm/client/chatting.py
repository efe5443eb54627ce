"""Asking for text: conversations, instructions, streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from byzerllm.client.conversation import Conversation, read_conversation, takes_messages
from byzerllm.client.deploying import Deploying
from byzerllm.client.effects import Steps, adrive, adrive_stream, drive, drive_stream
from byzerllm.client.pipeline import run, run_stream
from byzerllm.client.presenter import Presenter
from byzerllm.client.wire import to_item, to_row
from byzerllm.errors import ConfigError, NotYet, Unsupported
from byzerllm.events.hooks import Hooks, Installable, Scopes, current_scopes
from byzerllm.types.data import LLMRequest, LLMResponse, SingleOutputMeta
from byzerllm.types.records import Generate, Message, RenderChat, Reply, Request
from byzerllm.types.sampling import merged

Settings = Mapping[str, Any] | None
CallHooks = Sequence[Installable] | None


class Chatting(Deploying):
    """The part of the client that generates."""

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
        if llm_config is not None and not isinstance(llm_config, Mapping):
            raise ConfigError(f"llm_config is a dictionary, not {type(llm_config).__name__}")
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
        steps = self._stream(
            name,
            messages,
            role_mapping,
            self._merged(llm_config, extra_request_params),
            hooks,
            current_scopes(),
        )
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
            name,
            messages,
            role_mapping,
            self._merged(llm_config, extra_request_params),
            hooks,
            current_scopes(),
            is_async=True,
        )
        return self._apresent(adrive_stream(steps), name, delta_mode)

    def _stream(
        self,
        name: str,
        messages: list[Message],
        role_mapping: Mapping[str, Any] | None,
        llm_config: Settings,
        hooks: CallHooks,
        scopes: Scopes,
        *,
        is_async: bool = False,
    ) -> Steps[Reply]:
        meta = yield from self._meta(name)
        if meta.get("embedding_mode"):
            raise Unsupported(f"{name} writes no text; use emb or emb_rerank")
        if not meta.get("support_stream"):
            raise Unsupported(f"{name} cannot stream; use chat_oai")
        config = {**(llm_config or {}), "generation.stream": True}
        request = yield from self._request(name, messages, role_mapping, config, meta)
        call = self._call(
            "stream_chat_oai",
            name,
            [request],
            hooks=own_hooks(hooks),
            stream=True,
            is_async=is_async,
            meta=meta,
            scopes=scopes,
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
        own = {
            "max_length": length if cap is None else min(length, cap),
            "top_p": asked.top_p,
            "temperature": asked.temperature,
        }
        params = merged(own, self._params(name, extract_params))
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


def own_hooks(bundles: CallHooks) -> Hooks | None:
    """The handlers of one call.

    Raises:
        ConfigError: ``hooks`` is no list of bundles.
    """
    if bundles is not None and not isinstance(bundles, (list, tuple)):
        raise ConfigError(f"hooks={bundles!r}; give a list of bundles such as [HumanModel()]")
    return Hooks(*bundles) if bundles else None
