"""OpenAI, and every server that speaks its wire format at another ``saas.base_url``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from byzerllm.saas.compatible import OpenAICompatible


class CustomSaasAPI(OpenAICompatible):
    """``llm.deploy("", "saas/openai", "gpt", {"saas.api_key": …, "saas.model": …})``."""

    base_url = "https://api.openai.com/v1"
    api_key_env = "OPENAI_API_KEY"
    default_model = "gpt-4o-mini"

    def __init__(self, infer_params: Mapping[str, Any]) -> None:
        super().__init__(infer_params)
        if self.http.base_url == self.base_url:
            # OpenAI's reasoning models refuse the older name; other servers know only that one.
            self.max_tokens_field = "max_completion_tokens"
