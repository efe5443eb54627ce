"""The same lines with a hosted model, or with any server that speaks OpenAI's format.

Set OPENAI_API_KEY, and OPENAI_BASE_URL for another server than OpenAI's.
"""

import os

from byzerllm import ByzerLLM

llm = ByzerLLM()
llm.deploy(
    model_path="",
    pretrained_model_type="saas/openai",
    udf_name="gpt",
    infer_params={
        "saas.base_url": os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1"),
        "saas.model": os.environ.get("OPENAI_MODEL", "gpt-4o-mini"),
    },
)
llm.setup_default_model_name("gpt")

for text, _ in llm.stream_chat_oai("Name the capital of Germany.", delta_mode=True):
    print(text, end="", flush=True)
print()
