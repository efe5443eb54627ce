"""Old import path of ``byzerllm.messages.content_str``."""

from byzerllm.messages import content_str

__all__ = ["content_str"]
