"""The hosted entry point: reads the settings, builds the page, launches it."""

import argparse
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, replace

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# Gradio's own statistics of its queue: a table of up to 10,000 runs, built anew after each of them.
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000")
if os.environ.get("SPACES_ZERO_GPU"):
    import spaces  # noqa: F401  (has to come before anything that touches CUDA)

from fastllm.cli.options import add_device_argument
from fastllm.cli.output import degrade_text
from fastllm.demo.engine import LocalEngine
from fastllm.demo.guard import Guard
from fastllm.demo.limits import Models, read_limits, read_models, read_network, titled_drafters
from fastllm.demo.page import build, launch_options
from fastllm.devices import leave_a_core
from fastllm.errors import FastLLMError, SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves the page until it is told to end; 2 where a setting is wrong."""
    degrade_text()
    leave_a_core()
    options = _parser().parse_args(arguments)
    try:
        limits, network = read_limits(), read_network()
        require_free(options.host or LOCAL, options.port)
        models = chosen(options, read_models())
        # Models load in the background; where a GPU is borrowed they are there before the launch.
        engine = LocalEngine(**asdict(models), say=_say)
        page = build(engine, limits)
    except FastLLMError as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    if options.host:
        network = replace(network, hosts=(*network.hosts, options.host.lower()))
    # The server puts in the place of a proxy's address whom the proxy heard from: of these alone.
    os.environ["FORWARDED_ALLOW_IPS"] = ",".join(network.trusted_proxies)
    guard = Guard(limits, network)
    engine.start()
    try:
        _, address, _ = page.launch(
            server_name=options.host,
            server_port=options.port,
            prevent_thread_lock=True,
            **launch_options(guard),
        )
    except OSError as error:
        print(f"app.py: the page cannot be served ({error}). Give another --port.", file=sys.stderr)
        return 2
    _say(f"FastLLM is at {address}")
    _wait()
    guard.dismiss()
    page.close(verbose=False)
    return 0


LOCAL = "127.0.0.1"
"""Where the page listens by default."""


def require_free(host: str, port: int | None) -> None:
    """Refuses an address that the page cannot listen on, its host a name or numeric.

    Without a port the host alone is asked about: the server would try a hundred ports of it.

    Raises:
        SettingsError: somebody listens there already, or it is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        if port == 0:  # a free one, another each time, which nobody is told of
            raise OverflowError("0 is no port")
        socket.create_server((host, port or 0), family=family).close()
    except (OSError, OverflowError, UnicodeError) as error:
        if port is None:
            raise SettingsError(
                f"nothing can listen on {host} ({error}). Give another --host: an address of this "
                "machine, or 0.0.0.0 for all of them."
            ) from error
        raise SettingsError(
            f"nothing can listen on {host}, port {port} ({error}). Give another --port, or leave "
            "it out: then the first free one from 7860 is taken."
        ) from error


def _wait() -> None:
    """Until the process is told to end, by Ctrl-C or by whoever runs it."""
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    while not told.wait(1.0):  # in pieces: on Windows a wait is not interrupted
        pass


def chosen(options: argparse.Namespace, models: Models) -> Models:
    """The models of the Spacefile, and what the command line says otherwise.

    Raises:
        SettingsError: two drafters have one title, or the source length is below 1.
    """
    if options.source_length is not None and options.source_length < 1:
        raise SettingsError(f"--source-length {options.source_length}: give at least 1.")
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
    add = parser.add_argument
    add("--host", help="the address to listen on (default: this machine only)")
    add("--port", type=int, help="the port (default: the first free from 7860)")
    add("--target", help="shipped target, folder or Hub model")
    add("--load-in", metavar="TYPE", help="the target's weights: fp32, bf16, 8bit or 4bit")
    more = "one more lane, also OWNER/NAME of a T5 on the Hub; may repeat"
    add("--drafter", action="append", default=[], metavar="FOLDER[=TITLE]", help=more)
    add("--prefix", help='before each article, such as "summarize: "')
    add("--source-length", type=int, metavar="N", help="the most source tokens that are read")
    add_device_argument(parser)
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
