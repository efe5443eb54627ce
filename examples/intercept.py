"""Put a person between a program and its model, in ten lines."""

from byzerllm import ByzerLLM
from byzerllm.human import ask_human
from byzerllm.types import EventName

llm = ByzerLLM.local()
question = [{"role": "user", "content": "Name the capital of Germany."}]

print("The model says:", llm.chat_oai(question)[0].output)

llm.add_event_callback(EventName.BEFORE_CALL_MODEL, ask_human)
print("You said:", llm.chat_oai(question)[0].output)
