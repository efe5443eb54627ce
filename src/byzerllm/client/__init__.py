"""The client: ``ByzerLLM`` and the one pipeline that every call takes."""

from byzerllm.client.byzerllm import ByzerLLM, default_chat_wrapper

__all__ = ["ByzerLLM", "default_chat_wrapper"]
