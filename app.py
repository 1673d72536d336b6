"""The hosted entry point: reads the settings, builds the page, launches it."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# Gradio's own statistics of its queue: a table of up to 10,000 runs, built anew after each of them.
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000")
if os.environ.get("SPACES_ZERO_GPU"):
    import spaces  # noqa: F401  (has to come before anything that touches CUDA)

from fastllm.cli.options import add_device_argument
from fastllm.demo.engine import LocalEngine
from fastllm.demo.limits import Models, read_limits, read_models, titled_drafters
from fastllm.demo.page import build, launch_options
from fastllm.errors import FastLLMError
from fastllm.words import first_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves the page until it is interrupted; 2 where a setting is wrong."""
    options = _parser().parse_args(arguments)
    try:
        limits = read_limits()
        models = chosen(options, read_models())
        # Models load in the background; where a GPU is borrowed they are there before the launch.
        engine = LocalEngine(**asdict(models), say=_say)
        page = build(engine, limits)
    except FastLLMError as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    engine.start()
    try:
        _, address, _ = page.launch(
            server_name=options.host,
            server_port=options.port,
            prevent_thread_lock=True,
            **launch_options(),
        )
    except (OSError, OverflowError) as error:  # a port in use, or one that cannot be
        print(
            f"app.py: cannot listen at {options.host or 'this machine'}, port "
            f"{options.port or 'any from 7860'} ({first_line(error)}). Give a free --port and an "
            "address of this machine as --host.",
            file=sys.stderr,
        )
        return 2
    _say(f"FastLLM is at {address}")
    page.block_thread()
    return 0


def chosen(options: argparse.Namespace, models: Models) -> Models:
    """The models of the Spacefile, and what the command line says otherwise.

    Raises:
        SettingsError: two drafters have one title.
    """
    given = {
        name: value
        for name in ("target", "load_in", "prefix", "source_length", "device")
        if (value := getattr(options, name)) is not None
    }
    return replace(
        models, **given, drafters={**models.drafters, **titled_drafters(options.drafter)}
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Serves FastLLM's page. What is not given stands in the Spacefile."
    )
    parser.add_argument("--host", help="the address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, help="the port (default: the first free from 7860)")
    parser.add_argument("--target", help="shipped target, folder or Hub model")
    parser.add_argument(
        "--load-in", metavar="TYPE", help="the target's weights: fp32, bf16, 8bit or 4bit"
    )
    parser.add_argument(
        "--drafter",
        action="append",
        default=[],
        metavar="FOLDER[=TITLE]",
        help="one more lane, also OWNER/NAME of a T5 on the Hub; may repeat",
    )
    parser.add_argument("--prefix", help='before each article, such as "summarize: "')
    parser.add_argument(
        "--source-length", type=int, metavar="N", help="the most source tokens that are read"
    )
    add_device_argument(parser)
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
