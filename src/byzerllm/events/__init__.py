"""Events on every call: payloads, verdicts, and where handlers register."""

from byzerllm.events.hooks import Hooks, Installable, On, Subscription
from byzerllm.events.payloads import (
    AfterCall,
    AfterModel,
    BeforeCall,
    BeforeModel,
    CallContext,
    EndCall,
    Event,
    ModelError,
    Progress,
    StreamChunk,
)
from byzerllm.events.verdicts import DROP, Answer, Deny, Drop, Recover, Retry, Stop

__all__ = [
    "DROP",
    "AfterCall",
    "AfterModel",
    "Answer",
    "BeforeCall",
    "BeforeModel",
    "CallContext",
    "Deny",
    "Drop",
    "EndCall",
    "Event",
    "Hooks",
    "Installable",
    "ModelError",
    "On",
    "Progress",
    "Recover",
    "Retry",
    "Stop",
    "StreamChunk",
    "Subscription",
]
