"""The same as ``saas/openai``, under its other name."""

from byzerllm.saas.openai import CustomSaasAPI

__all__ = ["CustomSaasAPI"]
