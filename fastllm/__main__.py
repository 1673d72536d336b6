"""`python -m fastllm COMMAND`: see `fastllm.cli.main`."""

import sys

from fastllm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
