"""The hosted entry point: reads the settings, builds the page, launches it."""

import argparse
import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
if os.environ.get("SPACES_ZERO_GPU"):
    import spaces  # noqa: F401  (has to come before anything that touches CUDA)

from fastllm.demo.build import build, launch_options
from fastllm.demo.engine import LocalEngine
from fastllm.demo.limits import read_limits


def main() -> None:
    """Serves the page until it is interrupted."""
    parser = argparse.ArgumentParser(description="Serves FastLLM's page.")
    parser.add_argument("--host", help="the address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, help="the port (default: the first free from 7860)")
    parser.add_argument("--target", default="target", help="shipped target, folder or Hub model")
    options = parser.parse_args()
    limits = read_limits()
    engine = LocalEngine(options.target, most_seconds=limits.seconds_per_run)
    page = build(engine, limits)
    engine.start()
    _, address, _ = page.launch(
        server_name=options.host,
        server_port=options.port,
        prevent_thread_lock=True,
        **launch_options(),
    )
    print(f"FastLLM is at {address}", flush=True)
    page.block_thread()


if __name__ == "__main__":
    main()
