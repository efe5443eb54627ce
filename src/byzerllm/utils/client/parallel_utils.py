"""Old import path of ``byzerllm.client.parallel``."""

from byzerllm.client.parallel import chat_oai, get_single_result

__all__ = ["chat_oai", "get_single_result"]
