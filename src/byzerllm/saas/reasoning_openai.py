"""The same as ``saas/openai``, for models that think first and refuse sampling settings."""

from __future__ import annotations

from byzerllm.saas import openai


class CustomSaasAPI(openai.CustomSaasAPI):
    """Sends no ``temperature`` and the like; ``saas.is_reasoning`` does the same elsewhere."""

    is_reasoning = True
