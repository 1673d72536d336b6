"""A script for `accelerate launch`: `pseudo` and `train` in one start of the interpreters.

Usage: launched.py COMMANDS.json, a list of argument lists of `python -m fastllm`.
"""

import json
import sys
from pathlib import Path

from fastllm.cli.main import main

for arguments in json.loads(Path(sys.argv[1]).read_text()):
    code = main(arguments)
    if code:
        sys.exit(code)
