"""The same as ``saas/openai``, under its name for reasoning models."""

from byzerllm.saas.openai import CustomSaasAPI

__all__ = ["CustomSaasAPI"]
