"""The head of the HTML that the server gives: Gradio's, with the tags of a shared link made ours.

Gradio's own tags name Gradio, and what `launch` takes as `head` is put in by the browser: whoever
shows a shared link reads the HTML alone.
"""

import html
import os
import re
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.responses import FileResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastllm import paths
from fastllm.demo import words

IMAGE = paths.ASSETS / "thumbnail.png"

IMAGE_PATH = "/thumbnail.png"

HOST = "SPACE_HOST"
"""A Space's environment variable: its host, or several between commas, its own domain first."""

_PLACE = b'<meta charset="utf-8" />'
"""After this, early in the page: whoever shows links may read no more than its beginning."""

_GRADIO = re.compile(rb'<meta\s+(?:property="og:|name="twitter:|name="description")[^>]*>\s*')


def tags(host: str = "") -> str:
    """The tags for sites that show a link to the page, served at `host`.

    Without one no image is named, for that takes an address.
    """
    told = {
        "description": words.CLAIM,
        "og:type": "website",
        "og:title": words.TITLE,
        "og:description": words.CLAIM,
        "twitter:card": "summary",
    }
    if host:
        told |= {
            "og:url": f"https://{host}/",
            "og:image": f"https://{host}{IMAGE_PATH}",
            "og:image:alt": words.THUMBNAIL,
            "twitter:card": "summary_large_image",
        }
    return "".join(
        f'<meta {"property" if name.startswith("og:") else "name"}="{name}"'
        f' content="{html.escape(text)}">\n'
        for name, text in told.items()
    )


def host() -> str:
    """Where the page is served, as its environment says; empty where it does not."""
    return os.environ.get(HOST, "").split(",")[0].strip()


class Head:
    """Middleware: adds to the head of each HTML page, and serves the image that is named there.

    `static/cancel.js` goes there too: it has to run before anything can be clicked.
    """

    def __init__(self, app: ASGIApp) -> None:
        script = (paths.PAGE / "static" / "cancel.js").read_text(encoding="utf-8")
        self._app = app
        self._content = f"{tags(host())}<script>(() => {{\n{script}}})();</script>\n".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == IMAGE_PATH:
            await FileResponse(IMAGE)(scope, receive, send)
        else:
            await self._app(scope, receive, _Rewriter(self._rewrite, send))

    def _rewrite(self, page: bytes) -> bytes:
        before, place, rest = _GRADIO.sub(b"", page).partition(_PLACE)
        return before + place + (b"\n" + self._content if place else b"") + rest


class _Rewriter:
    """Sends on what it is sent; HTML as a whole, rewritten."""

    def __init__(self, rewrite: Callable[[bytes], bytes], send: Send) -> None:
        self._rewrite = rewrite
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            if headers.get("content-type", "").startswith("text/html"):
                self._start = message
                return
        if self._start is None:
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if message.get("more_body", False):
            return
        body = self._rewrite(self._body)
        MutableHeaders(raw=self._start["headers"])["content-length"] = str(len(body))
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": body})
