"""The program that runs in the child process of the llama.cpp engine.

It reads one line of JSON (settings) from standard input, serves llama.cpp's own HTTP server on
the socket named there, says ``ready`` and lives until its standard input closes: whatever way
its parent ends, it ends too. It imports nothing of byzerllm, so that it starts quickly.
"""

import contextlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any


def parameters(xllamacpp: Any, settings: "dict[str, Any]") -> Any:
    """llama.cpp's parameter object from our settings."""
    params = xllamacpp.CommonParams()
    params.model.path = settings["model_path"]
    params.hostnames = [settings["socket"]]
    params.n_threads_http = settings["http_threads"]
    params.verbosity = 1  # errors, the parent shows them: why a file is not read stands there
    params.ui = False
    params.n_ctx = settings["n_ctx"]
    params.n_parallel = settings["n_parallel"]
    params.kv_unified = True  # slots share the context: any of them may use all of it
    params.n_batch = settings["n_batch"]
    params.n_ubatch = settings["n_batch"]
    params.cpuparams.n_threads = settings["n_threads"]
    params.cpuparams_batch.n_threads = settings["n_threads"]
    params.cache_ram_mib = settings["cache_ram_mib"]
    params.n_gpu_layers = settings["n_gpu_layers"]
    if settings.get("chat_template"):
        params.chat_template = settings["chat_template"]
    pooling = settings["pooling"]
    if pooling:
        params.embedding = True
        name = f"LLAMA_POOLING_TYPE_{pooling.upper()}"
        params.pooling_type = getattr(xllamacpp.llama_pooling_type, name)
    return params


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    sys.path[:] = settings["import_path"]  # find packages where the parent finds them
    try:
        import xllamacpp

        server = xllamacpp.Server(parameters(xllamacpp, settings))
    except Exception as error:
        print(f"failed {error}", flush=True)
        os._exit(1)
    print(f"ready {server.listening_address}", flush=True)

    def end_with_parent() -> None:
        sys.stdin.read()
        with contextlib.suppress(OSError):
            socket = Path(settings["socket"])
            socket.unlink()
            socket.parent.rmdir()
        os._exit(0)  # llama.cpp's threads do not join: they would keep the process for seconds

    watcher = threading.Thread(target=end_with_parent)
    watcher.start()
    watcher.join()


if __name__ == "__main__":
    main()
