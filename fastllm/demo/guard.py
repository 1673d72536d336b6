"""One guard in front of the page: what a request may be, and what one visitor may hold.

Gradio serves more than this page needs, and keeps what it is sent for longer than a visitor is
told. So a request is let through only where the page or a program of a visitor has a use for it;
a visitor can have few runs waiting; a run that nobody listens to ends; and what was sent is
forgotten once it has run.

The guard reads Gradio's queue, which has no public interface for any of this: it is written for
Gradio 6.31, and `tests/demo/test_guard.py` tries each part of it on a real page.
"""

import asyncio
import ipaddress
import json
import re
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gradio.queueing import Queue
from gradio.routes import App
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastllm.demo.limits import Limits, Network, visitor_of

TIDY_SECONDS = 1.0
"""How often the guard looks for runs without a listener, and for what is to be forgotten."""

ABANDONED_SECONDS = 10.0
"""A run ends so long after its last listener has left, or after it was asked for, if none came."""

UNREAD_SECONDS = 60.0
"""So long what a run has said is kept for a listener who has not come yet."""

USED_RECENTLY = timedelta(minutes=2)
"""Only sessions used since then are looked at: those before hold nothing any more."""

BODY_SECONDS = 30.0
"""A request that takes longer to arrive is dropped."""

DRAINED_BYTES = 64_000_000
"""So much of a body that is too large is read, and not kept: before that most clients do not look
for an answer."""

_READ = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|thumbnail\.png)/?"
    r"|/(assets|static)/.+"
    r"|/gradio_api/(info|openapi\.json|theme\.css|app_id|startup-events)/?"
)
_BEAT = re.compile(r"/gradio_api/heartbeat/[^/]+")
_DATA = re.compile(r"/gradio_api/queue/data")
_CALL = re.compile(r"/gradio_api/call/(?:v2/)?[^/]+/(?P<event>[^/]+)")
_JOIN = re.compile(r"/gradio_api/(?P<queue>queue/join)|/gradio_api/call/(?:v2/)?(?P<name>[^/]+)/?")
_TOLD = re.compile(r"/gradio_api/(?:run/[^/]+|cancel|reset)/?")

_ZIPPED = ("/", "/config")
"""What is large and of no type that Gradio compresses itself: it goes by the ending."""

NO_JSON = "The request is no JSON object that this page can read."
WRONG_TYPE = (
    "A part of the request has the wrong type. `data` is a list of values; which ones is listed at "
    "/gradio_api/info."
)
CROWDED = (
    "This page holds as much of what it is being sent as it can, from you or from everybody. Send "
    "it again in a moment."
)
NO_FILES = "This page takes no files from programs: send the text itself."
CLOSING = "This page is being closed or started anew. Try again in a minute."
NO_WORDS = (
    "This page could not do that, and only the operator's log tells why. Check what was sent, or "
    "try again."
)


class _Refused(Exception):
    """A request that is not let through: the status of the answer, and words for whoever asked."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


class Guard:
    """What is known of the visitors; one for each page that is served."""

    def __init__(self, limits: Limits, network: Network | None = None) -> None:
        self._limits = limits
        self._network = network or Network()
        self._closing = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: Counter[str] = Counter()
        self._left: dict[str, float] = {}
        self._joining: Counter[str] = Counter()
        self._held: Counter[str] = Counter()

    def before(self, app: ASGIApp) -> "Guard":
        """Goes before everything else in the app of the page."""
        self._app = app
        self._zipped = GZipMiddleware(app, minimum_size=1000, compresslevel=6)
        return self

    def dismiss(self) -> None:
        """Ends every stream with a word to its listener. May be called from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._closing.set)

    @asynccontextmanager
    async def _on_duty(self, app: App) -> AsyncIterator[None]:
        """Tidies up, again and again, as long as the app is served."""
        self._loop = asyncio.get_running_loop()

        async def rounds() -> None:
            while True:
                await asyncio.sleep(TIDY_SECONDS)
                try:
                    await self._tidy(app)
                except Exception:  # the next round may go well; the operator should know
                    traceback.print_exc()

        task = asyncio.create_task(rounds())
        try:
            yield
        finally:
            task.cancel()

    @contextmanager
    def _listening(self, session: str) -> Iterator[None]:
        """Somebody listens to a session meanwhile."""
        self._left.pop(session, None)
        try:
            with _counted(self._listeners, session):
                yield
        finally:
            if session not in self._listeners:
                self._left[session] = _now()

    @contextmanager
    def _enter(self, visitor: str, queue: Queue) -> Iterator[None]:
        """A request of a visitor is on its way into the queue meanwhile.

        Raises:
            _Refused: as many of theirs wait already, or are on their way, as may.
        """
        lines = queue.event_queue_per_concurrency_id.values()
        queued = [event for line in lines for event in line.queue]
        hosts = (event.request.client.host for event in queued if event.request.client)
        waiting = self._joining[visitor] + sum(visitor_of(host) == visitor for host in hosts)
        if waiting >= self._limits.waiting:
            raise _Refused(
                429,
                f"{self._limits.waiting} of your requests are waiting already, as many as this "
                "page keeps for one visitor. Wait until one of them has run, or stop it.",
            )
        with _counted(self._joining, visitor):
            yield

    @contextmanager
    def _holding(self, visitor: str) -> Iterator[Callable[[int], bool]]:
        """A request of a visitor is read and answered meanwhile.

        What is given says whether so many bytes more of it may be kept, and counts them if so: of
        one visitor as many full requests as may wait, of all as many as the queue takes.
        """
        kept = 0

        def hold(size: int) -> bool:
            nonlocal kept
            limits, held = self._limits, self._held
            if (
                held[visitor] + size > limits.waiting * limits.body_bytes
                or held.total() + size > limits.queue_size * limits.body_bytes
            ):
                return False
            held[visitor] += size
            kept += size
            return True

        try:
            yield hold
        finally:
            self._held[visitor] -= kept
            if not self._held[visitor]:
                del self._held[visitor]

    async def _tidy(self, app: App) -> None:
        """Ends runs without a listener; forgets what nobody reads, and what has been run."""
        queue = app.get_blocks()._queue
        now = _now()
        asked: dict[str, float] = {}
        for event in list(queue.event_ids_to_events.values()):
            asked[event.session_hash] = max(asked.get(event.session_hash, 0), event.enqueue_time)
        silent = ({*asked, *queue.pending_messages_per_session}) - set(self._listeners)
        self._left = {session: self._left.get(session, now) for session in silent}
        for session, left in list(self._left.items()):
            since = now - max(left, asked.get(session, 0))
            if since < (ABANDONED_SECONDS if session in asked else UNREAD_SECONDS):
                continue
            if session in asked:
                await queue.clean_events(session_hash=session)
            queue.pending_messages_per_session.pop(session, None)
            queue.pending_event_ids_session.pop(session, None)
        _forget_values(app, busy=set(asked))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the life of the app."""
        if scope["type"] == "lifespan":
            async with self._on_duty(scope["app"]):
                await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        started = echoes = False

        async def sealed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["x-content-type-options"] = "nosniff"
            await send(message)

        async def worded(message: Message) -> None:
            nonlocal echoes
            # FastAPI repeats the whole of a value that has the wrong type.
            echoes = echoes or message.get("status") == 422
            if not echoes:
                await sealed(message)

        try:
            await self._admit(scope, receive, worded)
            if echoes:
                raise _Refused(422, WRONG_TYPE)
        except _Refused as refused:
            answer = JSONResponse({"detail": refused.words}, refused.status)
            await answer(scope, receive, sealed)
        except Exception:
            if started:
                raise
            traceback.print_exc()
            await JSONResponse({"detail": NO_WORDS}, 500)(scope, receive, sealed)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host")
        if host is not None and not answers_to(host, self._network.hosts):
            raise _Refused(
                421,
                f"This page does not go by the name {host[:80]!r}. Whoever runs it can add names: "
                "`hosts` in the Spacefile, or FASTLLM_HOSTS.",
            )
        method, path = scope["method"], scope["path"]
        visitor = visitor_of(scope["client"][0] if scope.get("client") else None)
        queue: Queue = scope["app"].get_blocks()._queue
        if method in ("GET", "HEAD") and _READ.fullmatch(path):
            app = self._zipped if path in _ZIPPED else self._app
            await app(scope, receive, send)
        elif method == "GET" and _BEAT.fullmatch(path):
            await self._stream(scope, receive, send, b"")
        elif method == "GET" and _DATA.fullmatch(path):
            asked = parse_qs(scope["query_string"].decode("latin-1"))
            with self._listening(asked.get("session_hash", [""])[0]):
                await self._stream(scope, receive, send, _FAREWELL_PAGE)
        elif method == "GET" and (call := _CALL.fullmatch(path)):
            session = _session_of(queue, call["event"])
            if session not in queue.pending_messages_per_session:
                raise _Refused(
                    404,
                    "There is no such run. It is over and was read, or nobody read it in time: a "
                    f"run ends {ABANDONED_SECONDS:.0f} seconds after its last listener has left. "
                    "Ask again.",
                )
            with self._listening(session):
                await self._stream(scope, receive, send, _FAREWELL_CALL)
        elif method == "POST" and (join := _JOIN.fullmatch(path)):
            with self._holding(visitor) as hold:
                body = await self._body(scope, receive, hold)
                _require_sound(scope["app"], _tree(body), join["name"])
                with self._enter(visitor, queue):
                    await self._app(scope, _again(body, receive), send)
        elif method == "POST" and _TOLD.fullmatch(path):
            with self._holding(visitor) as hold:
                body = await self._body(scope, receive, hold)
                if _holds_file(_tree(body)):
                    raise _Refused(400, NO_FILES)
                await self._app(scope, _again(body, receive), send)
        else:
            raise _Refused(404, "This page has nothing at this address.")

    async def _body(self, scope: Scope, receive: Receive, hold: Callable[[int], bool]) -> bytes:
        """The body of a request; of one that is too large, or has no room, nothing is kept."""
        most = self._limits.body_bytes
        told = Headers(scope=scope).get("content-length", "")
        parts: list[bytes] = []
        size = 0
        too_large = told.isdecimal() and int(told) > most
        crowded = False
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while size < DRAINED_BYTES:
                    message = await receive()
                    if message["type"] != "http.request":  # gone
                        raise _Refused(400, NO_JSON)
                    part = message.get("body", b"")
                    size += len(part)
                    too_large = too_large or size > most
                    crowded = crowded or not (too_large or hold(len(part)))
                    if too_large or crowded:
                        parts.clear()
                    else:
                        parts.append(part)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise _Refused(
                408,
                f"The request did not arrive within {BODY_SECONDS:.0f} seconds. Send it again.",
            ) from None
        if too_large:
            raise _Refused(
                413,
                f"That is too much at once: this page reads requests of up to {most:,} bytes. Send "
                "less.",
            )
        if crowded:
            raise _Refused(429, CROWDED)
        return b"".join(parts)

    async def _stream(self, scope: Scope, receive: Receive, send: Send, farewell: bytes) -> None:
        """Passes a stream on; a page that closes ends it with a word.

        A listener that takes nothing for `UNREAD_SECONDS` has left: what it was to be told would
        be kept for it.
        """
        started = over = stuck = False

        async def passed(message: Message) -> None:
            nonlocal started, stuck
            if over:
                return
            started = True
            if b'"error"' in message.get("body", b""):
                message = {**message, "body": _worded(message["body"])}
            try:
                async with asyncio.timeout(UNREAD_SECONDS):
                    await send(message)
            except TimeoutError:
                stuck = True
                raise OSError("the listener takes nothing") from None

        serving = asyncio.ensure_future(self._app(scope, receive, passed))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({serving, closing}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                if not stuck:
                    await serving
                return
            over = True
            if started:
                await send({"type": "http.response.body", "body": farewell, "more_body": False})
            else:
                raise _Refused(503, CLOSING)
        finally:
            closing.cancel()
            serving.cancel()
            await asyncio.gather(serving, closing, return_exceptions=True)


def _now() -> float:
    """Seconds, on the clock that Gradio's queue uses."""
    return asyncio.get_running_loop().time()


@contextmanager
def _counted(counter: Counter[str], key: str) -> Iterator[None]:
    """Counts one more meanwhile; who has none any more is forgotten."""
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]


def _forget_values(app: App, busy: set[str]) -> None:
    """Clears the values of components that Gradio keeps for each of the last sessions.

    It keeps them for links to a filled-in page (`deep_link`), which this page does not give out.
    """
    holder = app.state_holder
    recent = datetime.now() - USED_RECENTLY
    for session, state in list(holder.session_data.items()):
        used = holder.time_last_used.get(session)
        if session in busy or (used is not None and used < recent):
            continue
        for component in state.components:
            if component.get("props"):
                component["props"]["value"] = None


_FAREWELL_PAGE = "data: {}\n\n".format(
    json.dumps(
        {
            "msg": "unexpected_error",
            "message": CLOSING,
            "session_not_found": False,
            "success": False,
        }
    )
).encode()
_FAREWELL_CALL = f"event: error\ndata: {json.dumps(CLOSING)}\n\n".encode()

_WORDLESS = re.compile(rb'(?<!\\)"error": ?null')


def _worded(message: bytes) -> bytes:
    """A message of a stream; a failure that says nothing is given words.

    In text that is sent along a quotation mark stands behind a backslash.
    """
    return _WORDLESS.sub(b'"error":' + json.dumps(NO_WORDS).encode(), message)


def answers_to(host: str, names: tuple[str, ...]) -> bool:
    """Whether the page may be asked for by the name in a Host header; "*" in `names` is any.

    A name that is not its own may have been made to point here by another site (DNS rebinding),
    whose scripts could then read the page. A numeric address cannot.
    """
    if "*" in names:
        return True
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost") or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives a body that has been read, and then what comes after it."""
    first = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receiving() -> Message:
        return next(first, None) or await receive()

    return receiving


def _tree(body: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        raise _Refused(400, NO_JSON)
    return tree


def _holds_file(tree: Any) -> bool:
    """Whether Gradio could take a value in it for a file, and look for it on this machine."""
    left = [tree]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "path" in value and "meta" in value:
                return True
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return False


def _require_sound(app: App, tree: dict[str, Any], name: str | None) -> None:
    """Refuses what Gradio would fail on without a word.

    An endpoint that was not called by its `name` is the one whose number stands in `tree`.

    Raises:
        _Refused: it holds files, names no function, or has another number of values than it takes.
    """
    if _holds_file(tree):
        raise _Refused(400, NO_FILES)
    if name is None and tree.get("simple_format"):  # the whole text each time, as nobody needs it
        raise _Refused(400, NO_JSON)
    asked = name if name is not None else tree.get("fn_index")
    functions = app.get_blocks().fns.values()
    found = next((fn for fn in functions if asked == (fn.api_name if name else fn._id)), None)
    if found is None or (name is not None and found.api_visibility == "private"):
        raise _Refused(
            404,
            f"This page has no function {str(asked)[:80]!r}. Its functions are listed at "
            "/gradio_api/info.",
        )
    values = tree.get("data")
    if not isinstance(values, list):
        return  # FastAPI refuses it; of `call/v2` there is none
    named = [block for block in found.inputs if not block.skip_api]
    if len(values) not in (len(found.inputs), len(named)):
        title = f"/{found.api_name}" if name else "This function"
        raise _Refused(
            400,
            f"{title} takes {len(named)} values, and {len(values)} were sent. They are listed at "
            "/gradio_api/info.",
        )


def _session_of(queue: Queue, event: str) -> str:
    """The session of a run that a program listens to, as Gradio finds it."""
    known = queue.event_ids_to_events.get(event)
    if known is not None:
        return known.session_hash
    sessions = queue.pending_event_ids_session.items()
    return next((session for session, events in sessions if event in events), event)
