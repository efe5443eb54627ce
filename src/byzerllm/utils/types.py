"""Old import path of ``byzerllm.types``."""

from byzerllm.types import SingleOutput, SingleOutputMeta, StreamOutputs

__all__ = ["SingleOutput", "SingleOutputMeta", "StreamOutputs"]
