"""Typed handlers: edit a request, guard a call, watch the end."""

from dataclasses import replace

from byzerllm import ByzerLLM
from byzerllm.errors import CallDenied
from byzerllm.events import BeforeModel, Deny, EndCall
from byzerllm.types.records import Generate

llm = ByzerLLM.local()


@llm.on.before_model(role="edit")
def be_exact(event: BeforeModel) -> BeforeModel:
    assert isinstance(event.request, Generate)
    params = {**event.request.params, "temperature": 0, "max_length": 30}
    return replace(event, request=replace(event.request, params=params))


@llm.on.before_model(role="guard")
def keep_secrets(event: BeforeModel) -> Deny | None:
    assert isinstance(event.request, Generate)
    return Deny("no passwords, please") if "password" in event.request.text else None


@llm.on.end_call
def tell(event: EndCall) -> None:
    print(f"  ({event.ctx.method}: {event.outcome})")


print(llm.chat_oai("Name the capital of Germany.")[0].output)
try:
    llm.chat_oai("What is my password?")
except CallDenied as refusal:
    print("refused:", refusal)
