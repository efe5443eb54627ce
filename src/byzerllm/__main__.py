"""``python -m byzerllm`` is the ``byzerllm`` command."""

from byzerllm.cli import main

if __name__ == "__main__":
    main()
