"""What type checkers must accept, and on lines marked ``# refuse``, reject."""

from __future__ import annotations

from byzerllm import ByzerLLM
from byzerllm.events import (
    DROP,
    AfterModel,
    Answer,
    BeforeCall,
    BeforeModel,
    Deny,
    EndCall,
    ModelError,
    Recover,
    Retry,
    Stop,
    StreamChunk,
)
from byzerllm.human import HumanModel, ask_human
from byzerllm.types import EventName, LLMResponse

llm = ByzerLLM()


# -- accepted ---------------------------------------------------------------------------------


@llm.on.before_model
def guard(event: BeforeModel) -> Answer | Deny | None:
    return Answer("x") if event.request.model else None


@llm.on.before_model(role="edit", kinds={"chat"}, order=3, timeout=1)
def edit(event: BeforeModel) -> BeforeModel:
    return event


@llm.on.before_model(role="guard")
async def ask(event: BeforeModel) -> Answer | None:
    return None


@llm.on.after_model
def check(event: AfterModel) -> Retry | None:
    return Retry("again")


@llm.on.chunk
def redact(event: StreamChunk) -> StreamChunk | Stop | None:
    return None if event.chunk.text else Stop()


llm.on.chunk(lambda event: DROP)
llm.on.model_error(lambda event: Recover("instead"))
llm.on.end_call(lambda event: print(event.seconds))
guard.remove()
llm.add_event_callback(EventName.BEFORE_CALL_MODEL, ask_human)
responses: list[LLMResponse] = llm.chat_oai("hi", hooks=[HumanModel()])
client: ByzerLLM = llm.setup_default_model_name("x").setup_num_workers(2)


# -- refused ----------------------------------------------------------------------------------


def retries_too_early(event: BeforeModel) -> Retry | None:
    return Retry("again")


llm.on.before_model(retries_too_early)  # refuse
llm.on.before_model(role="guard")(retries_too_early)  # refuse


def answers_too_late(event: AfterModel) -> Answer:
    return Answer("x")


llm.on.after_model(answers_too_late)  # refuse


def wants_another_event(event: BeforeCall) -> None: ...


llm.on.before_model(wants_another_event)  # refuse


def decides_at_the_end(event: EndCall) -> Deny:
    return Deny()


llm.on.end_call(decides_at_the_end)  # refuse


def drops_an_error(event: ModelError) -> Stop:
    return Stop()


llm.on.model_error(drops_an_error)  # refuse


async def answers_late_and_async(event: AfterModel) -> Answer:
    return Answer("x")


llm.on.after_model(answers_late_and_async)  # refuse
llm.chat_oai("hi", hooks=[lambda event: None])  # refuse
