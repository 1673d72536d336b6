"""Films the first seconds of the page for the README: `python -m tools.moving_picture`.

The race at its end also becomes the picture that a link to the page shows elsewhere.

What a first visitor sees is filmed in a real browser: the recorded race, no model runs. A machine
that is too slow for it makes fewer frames, each shown for as long as it stood.
"""

import argparse
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fastllm.demo.engine import LocalEngine
from fastllm.demo.head import IMAGE
from fastllm.demo.limits import read_limits
from fastllm.demo.page import build, launch_options
from fastllm.errors import SettingsError
from fastllm.files import write_whole
from tools.common import tool
from tools.measure import PATIENCE_SECONDS, chromium_of, playwright

MOST_BYTES = 2_000_000
"""A README is opened on phones, too."""

STAGE = "?present=1"
"""The race without the choices above it, large."""

LINK_SIZE = {"width": 1200, "height": 630}

COLOURS = 128
FRAME_SECONDS = 0.1

Frame = tuple[bytes, float]
"""A picture (PNG) and the seconds that it stood."""


@tool("moving_picture")
def main(arguments: Sequence[str] | None = None) -> int:
    """Films the page and writes the picture; 2 where that cannot be."""
    parser = argparse.ArgumentParser(prog="tools.moving_picture", description=__doc__)
    parser.add_argument("--to", type=Path, default=Path("assets/race.gif"), metavar="FILE")
    parser.add_argument("--seconds", type=float, default=16.0)
    parser.add_argument(
        "--size", type=int, nargs=2, default=(1280, 900), metavar=("WIDTH", "HEIGHT")
    )
    parser.add_argument(
        "--shrink", type=float, default=0.625, help="of the picture, before it is kept"
    )
    options = parser.parse_args(arguments)
    frames, still = film(options.seconds, options.size)
    picture = animate(frames, options.shrink)
    write_whole(options.to, picture)
    write_whole(IMAGE, still)
    print(f"{options.to}: {len(frames)} frames, {len(picture):,} bytes")
    return 0


def film(seconds: float, size: Sequence[int]) -> tuple[list[Frame], bytes]:
    """Serves the page, opens it and looks at it again and again, once the race stands there.

    Returns:
        The frames, and a picture (PNG) of the race at its end.

    Raises:
        SettingsError: there is no playwright, or no Chromium.
    """
    library = playwright()
    engine = LocalEngine("target")
    engine.start()
    while engine.loading:  # the page would say so, in a line that then goes away
        time.sleep(0.1)
    page = build(engine, read_limits())
    address = page.launch(prevent_thread_lock=True, **launch_options())[1]
    with library.sync_playwright() as running:
        chromium = chromium_of(running)
        view = chromium.new_page(
            viewport={"width": size[0], "height": size[1]}, color_scheme="light"
        )
        view.goto(address + STAGE, timeout=PATIENCE_SECONDS * 1000)
        view.wait_for_selector(".fl-race", timeout=PATIENCE_SECONDS * 1000)
        looks: list[tuple[bytes, float]] = []
        started = time.monotonic()
        while (now := time.monotonic() - started) < seconds:
            looks.append((view.screenshot(type="png", timeout=PATIENCE_SECONDS * 1000), now))
            left = FRAME_SECONDS - (time.monotonic() - started - now)
            view.wait_for_timeout(max(1.0, 1000 * left))
        view.set_viewport_size(LINK_SIZE)
        view.keyboard.press("End")
        view.wait_for_timeout(500)
        still = view.screenshot(type="png", timeout=PATIENCE_SECONDS * 1000)
        chromium.close()
    page.close(verbose=False)
    ends = [at for _, at in looks[1:]] + [seconds]
    return [(png, end - at) for (png, at), end in zip(looks, ends, strict=True)], still


def animate(frames: Sequence[Frame], shrink: float) -> bytes:
    """A GIF of the frames, which begins anew after its end.

    What looks the same as the one before makes that one stand longer. `shrink` is of width and
    height, above 0 and at most 1.

    Raises:
        SettingsError: it has more than `MOST_BYTES`.
    """
    kept: list[Frame] = []
    for png, stood in frames:
        if kept and kept[-1][0] == png:
            kept[-1] = png, kept[-1][1] + stood
        else:
            kept.append((png, stood))
    pictures = []
    for png, _ in kept:
        whole = Image.open(io.BytesIO(png)).convert("RGB")
        size = round(whole.width * shrink), round(whole.height * shrink)
        pictures.append(whole.resize(size, Image.Resampling.LANCZOS))
    # One palette for all: what does not move then stays the same, and is not stored again.
    some = [pictures[0], pictures[len(pictures) // 2], pictures[-1]]
    beside = Image.new("RGB", (sum(each.width for each in some), some[0].height))
    for place, each in enumerate(some):
        beside.paste(each, (place * each.width, 0))
    palette = beside.quantize(COLOURS)
    first, *rest = [
        picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures
    ]
    into = io.BytesIO()
    first.save(
        into, "GIF", save_all=True, append_images=rest, optimize=True, loop=0,
        duration=[max(20, round(1000 * stood)) for _, stood in kept],
    )  # fmt: skip
    if into.tell() > MOST_BYTES:
        raise SettingsError(
            f"the picture has {into.tell():,} bytes, and a README bears {MOST_BYTES:,}: give fewer "
            "--seconds, or a smaller --shrink."
        )
    return into.getvalue()


if __name__ == "__main__":
    sys.exit(main())
