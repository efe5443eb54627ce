"""What ``make demo`` shows: a real model on this machine, then a person in its place."""

import sys
import time

from byzerllm import ByzerLLM
from byzerllm.errors import HumanUnavailable
from byzerllm.human import ask_human
from byzerllm.types import EventName

GERMANY = "Name the capital of Germany."
FRANCE = "What is the capital city of France? Answer in one sentence."
EXACT = {"temperature": 0, "max_length": 60}


def answer_as_a_whole(llm: ByzerLLM) -> None:
    response = llm.chat_oai(GERMANY, llm_config=EXACT)[0]
    print(f"you    {GERMANY}\nmodel  {response.output}\n")


def answer_piece_by_piece(llm: ByzerLLM) -> None:
    print(f"you    {FRANCE}\nmodel  ", end="", flush=True)
    tokens, first = 0, 0.0
    started = time.perf_counter()
    for text, meta in llm.stream_chat_oai(FRANCE, llm_config=EXACT, delta_mode=True):
        print(text, end="", flush=True)
        tokens, first = meta.generated_tokens_count, meta.first_token_time
    speed = tokens / (time.perf_counter() - started)
    print(f"\n       ({tokens} tokens, {speed:.0f} tokens/s, first after {first * 1000:.0f} ms)\n")


def answer_it_yourself(llm: ByzerLLM) -> None:
    print("Now a person sits between the program and the model. The next request is yours.\n")
    llm.add_event_callback(EventName.BEFORE_CALL_MODEL, ask_human)
    try:
        response = llm.chat_oai([{"role": "user", "content": GERMANY}], llm_config=EXACT)[0]
    except HumanUnavailable:
        print("\n(The input has ended, so nobody answered, and the program was told so.)")
    else:
        print(f"\nThe program got: {response.output!r}, as if the model had said it.")


def main() -> None:
    started = time.perf_counter()
    llm = ByzerLLM.local()
    print(f"\nSmolLM2-135M runs on this machine ({time.perf_counter() - started:.1f} s to load).\n")
    answer_as_a_whole(llm)
    answer_piece_by_piece(llm)
    if sys.stdin.isatty():
        answer_it_yourself(llm)
    else:
        print("In a terminal you would now be asked to answer in the model's place. Try it with:")
        print("  .venv/bin/python examples/intercept.py")
        print("or here, with an answer from a pipe:")
        print("  echo 'Berlin, I think.' | .venv/bin/python examples/intercept.py")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
