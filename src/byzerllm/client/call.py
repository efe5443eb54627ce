"""One call of a user, as it travels through the pipeline."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from byzerllm.client.wire import to_item
from byzerllm.events.payloads import CallContext
from byzerllm.types.records import Request

if TYPE_CHECKING:
    from byzerllm.events.hooks import Handlers
    from byzerllm.runtime.base import Runtime


@dataclass
class Limits:
    """The lengths set for a model, in tokens; ``None`` = not limited."""

    max_input: int | None
    max_model: int | None
    budget: int
    """New tokens where the request does not say."""


@dataclass
class Call:
    """One call of a user on its way through the pipeline."""

    llm: object
    """The client, as callbacks of the old form get it."""
    runtime: Runtime
    model: str
    method: str
    requests: list[Request]
    handlers: Handlers | None = None
    limits: Limits | None = None
    stream: bool = False
    is_async: bool = False
    history: bool = True
    """Whether the items of this method carry the key ``history``."""
    timeout: float | None = None
    """Seconds the models may take altogether; people's time does not count."""
    max_retries: int = 2
    fallbacks: Sequence[str] = ()
    pins: Mapping[str, int] = field(default_factory=dict)
    default_budget: int | None = None
    attempt: int = 1
    verbose: bool = False
    context: CallContext | None = None
    handler_seconds: float = 0.0
    model_seconds: float = 0.0

    @property
    def kind(self) -> str:
        return self.requests[0].kind

    def ctx(self, request: Request | None = None) -> CallContext:
        if self.context is None:
            self.context = CallContext(
                call_id=uuid.uuid4().hex,
                method=self.method,
                kind=self.kind,
                model=self.model,
                stream=self.stream,
                is_async=self.is_async,
            )
        if self.attempt == self.context.attempt and (
            request is None or request.model == self.context.model
        ):
            return self.context
        model = self.model if request is None else request.model
        return replace(self.context, attempt=self.attempt, model=model)

    def items(self) -> list[dict[str, Any]]:
        return [to_item(request, history=self.history) for request in self.requests]

    def remaining(self) -> float | None:
        """Seconds left for the models; ``None`` where time is not limited."""
        return None if self.timeout is None else self.timeout - self.model_seconds
