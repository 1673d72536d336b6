"""The decoder of a T5, written out over buffers that stay: the fast path at batch 1.

`generate` of transformers pays for modules, hooks and caches that grow; a small decoder spends more
on these than on arithmetic. Here the same weights are fused (query, key and value; the two halves
of a gate), the article's keys and values are computed once, position biases lie ready in a table,
and any number of new tokens costs one call. Going back is setting a length. On CUDA, calls of a
few tokens are graphs (`fastllm.targets.graphs`), bound to buffers that a pool lends to one session
at a time.

Beside it, an encoder of the same make (`fastllm.targets.t5_encoder`) or that of transformers. What
cannot be decoded here (quantised weights, models that are no T5, a model on several devices)
`unfit` names; the general path of `fastllm.targets.hub` serves these.
"""

import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import product
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from transformers import T5ForConditionalGeneration

from fastllm.devices import aligned, prepare
from fastllm.errors import SettingsError
from fastllm.targets.graphs import Capturing, Graphs
from fastllm.targets.matrices import Matrix, matrix
from fastllm.targets.slate import Choice, Slate, Written
from fastllm.targets.t5_encoder import ACTS, FeedForward, StaticEncoder, fits, foreign

_ROOM = 128  # tokens that a session has room for at first; it doubles as needed
_ROOM_ON_CUDA = 256  # more room costs the graphs: the longest text that is usually asked for
_USUAL_ROOM = (64, 128, 256)  # places that graphs made ahead attend to

_ROWS = 16
"""Calls of up to so many tokens find their position biases ready, and are graphs on CUDA."""

GRAPHS = not os.environ.get("SPACES_ZERO_GPU") and os.environ.get("FASTLLM_GRAPHS") != "0"
"""Whether calls are captured: not where a GPU is lent (ZeroGPU), to a process that is soon gone."""

_USUAL = range(1, 10)
"""How many tokens calls usually have, a draft of eight and the token before it at most. These are
warmed up when the decoder is made (CPU), or when buffers are (CUDA): not while a clock runs."""

_TRIED, _TRIES, _TRIED_SOURCES = (1, 3, 6, 9), 3, 256
"""Calls of how many tokens are tried out on one thread and on all, how often, over how long an
article. Of a shipped model that takes 40 ms in all."""

_SMALL = 1 << 24
"""A decoder of more weights takes all threads: trying it out would take long, and they pay."""


def unfit(model: Any) -> str:
    """Why a model cannot be decoded here, in words; empty where it can."""
    if type(model) is not T5ForConditionalGeneration:
        return f"it is a {type(model).__name__}, not a T5ForConditionalGeneration"
    if getattr(model, "hf_quantizer", None) is not None:
        return "its weights are quantised"
    if len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1:
        return "it is spread over several devices"
    if model.config.dense_act_fn not in ACTS:
        return f"its activation is {model.config.dense_act_fn}"
    if found := foreign(model.decoder):
        return f"decoder.{found}"
    parameters = dict(model.decoder.named_parameters()) | {"lm_head": model.lm_head.weight}
    devices = {weight.device.type for weight in parameters.values()}
    if not devices <= {"cpu", "cuda"} or len(devices) > 1:
        return f"its decoder is on {', '.join(sorted(devices))}"
    types: dict[bool, set[str]] = {True: set(), False: set()}
    for name, weight in parameters.items():
        types[name.endswith("wo.weight")].add(str(weight.dtype).removeprefix("torch."))
    leave, rest = (" and ".join(sorted(types[of_leave])) for of_leave in (True, False))
    known = (("float32", "float32"), ("bfloat16", "bfloat16"), ("float16", "float32"))
    return "" if (rest, leave) in known else f"its weights are {rest}, `wo` {leave}"


def require_fit(model: Any) -> None:
    """Refuses a model that cannot be decoded here.

    Raises:
        SettingsError: says why.
    """
    if reason := unfit(model):
        raise SettingsError(
            f"the static engine does not fit this model: {reason}. Take engine='transformers', or "
            "'auto', which chooses."
        )


class Crossing(NamedTuple):
    """What the decoder's layers attend to of an article: both (layers, 1, heads, S, d_kv)."""

    keys: torch.Tensor
    values: torch.Tensor


class _Article(NamedTuple):
    """A `Crossing`, a tensor for each layer."""

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]


class StaticDecoder:
    """The decoder of a T5. Weights are copied where they are fused: later changes do not reach it.

    Of a T5ForConditionalGeneration, v1.0 or v1.1, on one device, in float32, bfloat16 or float16
    (`wo` in float32, as transformers loads it). `size` is V, of the logits.

    Raises:
        SettingsError: it is no such model.
    """

    @torch.inference_mode()
    def __init__(self, model: Any) -> None:
        require_fit(model)
        config = model.config
        blocks = model.decoder.block
        self.embedding = model.decoder.embed_tokens.weight
        self.device: torch.device = self.embedding.device
        prepare(self.device)
        self.dtype: torch.dtype = self.embedding.dtype
        self._model = model
        self._heads = int(config.num_heads)
        self._width = int(config.d_kv)
        self._inner = self._heads * self._width
        # Where `wo` is float32, so is what it is added to, from the first layer on.
        self._flow = blocks[0].layer[-1].DenseReluDense.wo.weight.dtype
        self._layers = [_layer(block, config) for block in blocks]
        self._last = self._output(model)
        crossing = [block.layer[1].EncDecAttention for block in blocks]
        self._crossing = matrix([part for a in crossing for part in (a.k.weight, a.v.weight)])
        first = blocks[0].layer[0].SelfAttention
        farthest = int(config.relative_attention_max_distance)
        nearest_last = first.compute_bias(1, farthest + 1, past_seen_tokens=farthest)[0, :, 0]
        barred = nearest_last.new_full((self._heads, 1), float("-inf"))
        # The bias towards the token 0, 1, 2 ... places back; what is farther has the last but one
        # entry, what lies ahead the last.
        self._biases = torch.cat([nearest_last.flip(-1), barred], -1)
        self._adapt()
        self.size = len(model.lm_head.weight)
        self._tables: dict[int, torch.Tensor] = {}
        self._pool: dict[int, list[_Buffers]] = {}
        self._capturing = Capturing(self.device) if GRAPHS and self.device.type == "cuda" else None
        self._alone = 0  # calls of up to so many tokens are quickest on one thread
        if _unbatched(self.embedding):
            self._warm_up(model)

    def _adapt(self) -> None:
        """What a decoder of another shape changes before its first call."""

    def _output(self, model: Any) -> Matrix:
        """What makes logits (T, V) of the last layer's rows (T, d)."""
        config, norm = model.config, model.decoder.final_layer_norm
        scale = config.d_model**-0.5 if config.scale_decoder_outputs else 1.0
        weights = [model.lm_head.weight]
        return matrix(weights, norm.weight, scale, epsilon=config.layer_norm_epsilon)

    def _warm_up(self, model: Any) -> None:
        """Calls of the usual sizes, so that nothing is done for the first time while a clock runs.

        Of short calls it is tried out whether one thread is quicker than waking others.
        """
        session = self.begin(self.remember(torch.zeros(1, _TRIED_SOURCES, model.config.d_model)))

        def seconds(count: int) -> float:
            session.rollback(0)
            started = time.perf_counter()
            session.forward([0] * count)
            return time.perf_counter() - started

        for count in _USUAL:
            seconds(count)
        usual = torch.get_num_threads()
        size = sum(weights.numel() for weights in model.decoder.parameters())
        for count in _TRIED if usual > 1 and size <= _SMALL else ():
            several = min(seconds(count) for _ in range(_TRIES))
            before, self._alone = self._alone, count
            if min(seconds(count) for _ in range(_TRIES)) > several:
                self._alone = before
                break

    @property
    def bytes(self) -> int:
        """Of the weights that a token reads: the layers' matrices and that of the logits."""
        matrices = [self._last]
        for layer in self._layers:
            matrices += [*layer[:4], layer.feed.enter, layer.feed.leave]
        return sum(one.bytes for one in matrices)

    @property
    def graphs_failure(self) -> str:
        """Why CUDA graphs were given up; empty where they are used, or were never to be."""
        return self._capturing.failure if self._capturing is not None else ""

    @cached_property
    def encoder(self) -> Callable[[list[int]], torch.Tensor]:
        """Source ids to states (1, S, d). Made when it is first asked for."""
        if fits(self._model):
            return StaticEncoder(self._model)
        network, device = self._model.get_encoder(), self.device

        @torch.inference_mode()
        def encode(source_ids: list[int]) -> torch.Tensor:
            states: torch.Tensor = network(torch.tensor([source_ids], device=device))[0]
            return states

        return encode

    @torch.inference_mode()
    def remember(self, states: torch.Tensor) -> Crossing:
        """The keys and values of an article, from the encoder's output (1, S, d)."""
        rows = self._crossing(states[0].to(self.dtype))
        shape = (rows.shape[0], len(self._layers), 2, 1, self._heads, self._width)
        keys, values = rows.view(shape).permute(2, 1, 3, 4, 0, 5).contiguous().unbind(0)
        return Crossing(keys, values)

    def begin(self, crossing: Crossing) -> "StaticSession":
        """A fresh session over an article; its buffers come from the pool and go back there."""
        return StaticSession(self, crossing)

    def _lend(self, crossing: Crossing, session: "StaticSession") -> "_Buffers":
        """Buffers for a session; when it ends they come back."""
        # Graphs read an article from a place of their own, of a few sizes.
        sources = 0 if self._capturing is None else bucket(crossing.keys.shape[3])
        free = self._pool.setdefault(sources, [])
        try:
            made = free.pop()
        except IndexError:
            shape = (len(self._layers), self._heads, self._width)
            made = _Buffers(shape, self.embedding, sources, self._capturing)
        weakref.finalize(session, free.append, made).atexit = False
        return made

    def _bias(self, room: int, length: int, count: int) -> torch.Tensor:
        """Biases of `count` tokens behind `length`: (1, heads, count, length + count).

        Of a table, since what a token adds to a score depends on its distance alone.
        """
        table = self._tables.get(room) if count <= _ROWS else None
        if table is None:
            rows = max(count, _ROWS)
            columns = torch.arange(-room, rows, device=self.device)
            table = self._far(torch.arange(rows, device=self.device)[:, None] - columns)
            if count <= _ROWS:
                self._tables[room] = table
        return aligned(table[:, :, :count, room - length : room + count])

    def _far(self, back: torch.Tensor) -> torch.Tensor:
        """The biases towards tokens `back` places back, (T, S) to (1, heads, T, S)."""
        ahead = self._biases.shape[1] - 1
        rows = self._biases[:, back.clamp(max=ahead - 1).masked_fill(back < 0, ahead)]
        return rows.contiguous()[None]

    def _tree_bias(self, tree: torch.Tensor, length: int | torch.Tensor, seen: int) -> torch.Tensor:
        """Biases of a tree's nodes behind `length` tokens towards the first `seen` places.

        Shape (1, heads, count, seen): towards the text and the own ancestors by how many tokens
        lie between, minus infinity towards all else. `tree` is of `tree_rows`.
        """
        count = len(tree)
        ahead = torch.arange(seen, device=tree.device) - length
        own = tree.index_select(1, ahead.clamp(0, count - 1) + 1)
        back = torch.where(ahead < 0, tree[:, :1] - ahead, own.masked_fill(ahead >= count, -1))
        return self._far(back)

    def _run(self, ids: torch.Tensor, place: "_Place") -> torch.Tensor:
        """One call: the logits (T, V) behind the tokens `ids` (T,)."""
        usual = torch.get_num_threads()
        if len(ids) > self._alone or usual == 1:
            return self._compute(ids, place)
        torch.set_num_threads(1)
        try:
            return self._compute(ids, place)
        finally:
            torch.set_num_threads(usual)

    def _attention(self, place: "_Place") -> tuple[Any, tuple[int, ...], torch.Tensor]:
        """The function that attends, the dimensions for a batch that it takes, and the biases."""
        if _unbatched(self.embedding):
            return _attend, (), place.bias[0]
        return _attend_batched, (1,), place.bias

    def _compute(self, ids: torch.Tensor, place: "_Place") -> torch.Tensor:
        count, inner = len(ids), self._inner
        attend, batch, bias = self._attention(place)
        shape = (*batch, count, self._heads, self._width)
        flow = functional.embedding(ids, self.embedding).to(self._flow)
        for index, layer in enumerate(self._layers):
            entry = layer.own(flow)
            place.write(index, entry[:, inner:])
            found = attend(
                entry[:, :inner].view(shape).transpose(-3, -2),
                place.keys[index],
                place.values[index],
                bias,
            )
            layer.own_out.add(flow, found.transpose(-3, -2).reshape(count, inner))
            found = attend(
                layer.cross(flow).view(shape).transpose(-3, -2),
                place.article.keys[index],
                place.article.values[index],
                place.mask,
            )
            layer.cross_out.add(flow, found.transpose(-3, -2).reshape(count, inner))
            layer.feed.add(flow)
        return self._last(flow)


Head = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Makes of a row (d,) the logits (V,), and numbers that tell whether they are right: all finite.
On CUDA it reads memory that stays as long as the buffers of a session do."""


class StaticSession:
    """One decoding in progress, over an article from `decoder.remember`."""

    trees = True

    @torch.inference_mode()
    def __init__(self, decoder: StaticDecoder, crossing: Crossing) -> None:
        self._decoder = decoder
        keys, values = crossing
        if _unbatched(keys):
            keys, values = keys[:, 0], values[:, 0]
        self._article = _Article(keys.unbind(0), values.unbind(0))
        self._length = 0
        self._buffers = decoder._lend(crossing, self)
        if self._buffers.article is not None:
            self._buffers.hold(crossing)
            for seen, count in product(_USUAL_ROOM, _USUAL):
                call = self._call(count, seen)
                self._buffers.graphs.prepare((count, seen), call, self._other_numbers)

    @property
    def length(self) -> int:
        """How many decoder tokens the cache holds."""
        return self._length

    def rollback(self, length: int) -> None:
        """Forgets all but the first `length` tokens."""
        self._length = max(0, min(self._length, length))

    @torch.inference_mode()
    def keep(self, length: int, path: Sequence[int] = ()) -> None:
        """Forgets all but the first `length` tokens, and those at `path` behind these."""
        self.rollback(length)
        if list(path) != list(range(len(path))):  # a path that is where it belongs stays there
            self._buffers.move(length, path)
        self._length += len(path)

    @torch.inference_mode()
    def forward(self, ids: list[int], parents: Sequence[int] | None = None) -> torch.Tensor:
        """Appends `ids` to the cache; returns the logits behind each, shape (len(ids), V).

        On CUDA the call returns before the device is done: whoever reads a number of it waits.
        """
        length, count = self._length, len(ids)
        buffers, decoder = self._buffers, self._decoder
        captured = buffers.graphs.used and count <= _ROWS
        # On CUDA all trees of up to `_ROWS` tokens share the graph of so many.
        rows = _ROWS if captured and parents is not None else count
        total = length + rows
        if total > buffers.room:
            buffers.grow(length, total)
        tree = None if parents is None else tree_rows(parents, rows)
        if captured:
            seen = min(bucket(total), buffers.room)
            entry = torch.tensor([length, *ids, *[ids[-1]] * (rows - count)])
            buffers.entry[: rows + 1].copy_(entry, non_blocking=True)
            if tree is not None:
                buffers.tree.copy_(tree, non_blocking=True)
            key = (rows, seen) if tree is None else ("tree", seen)
            call = self._call(rows, seen, tree=tree is not None)
            logits = buffers.graphs.replay(key, call, self._other_numbers)[:count]
        else:
            if tree is None:
                bias = decoder._bias(buffers.room, length, count)
            else:
                bias = decoder._tree_bias(tree.to(decoder.device), length, total)
            write, text = buffers.writer(length, count), buffers.read(total)
            place = _Place(write, *text, bias, self._article, None)
            logits = decoder._run(torch.tensor(ids, device=decoder.device), place)
        self._length = length + count
        return logits

    @torch.inference_mode()
    def draft(
        self,
        text: Sequence[int],
        count: int,
        choice: Choice,
        uniforms: torch.Tensor,
        head: Head | None = None,
    ) -> Written | None:
        """Reads what is missing of a text, at least a token, and drafts `count` tokens behind it.

        All of them but the last are in the cache afterwards. `head` makes logits of the decoder's
        rows, where these are none. None where a draft cannot be written on the device.
        """
        buffers = self._buffers
        unread = list(text[self._length :])
        total = len(text) + count - 1
        if not buffers.graphs.used:
            return None
        if total > buffers.room:
            buffers.grow(self._length, total)
        slate = buffers.slate(self._decoder.size)
        if not slate.fits(choice, total):
            return None
        if len(unread) > 2:
            self.forward(unread[:-1])
            unread = unread[-1:]
        length = self._length
        seen = min(bucket(total), buffers.room)
        buffers.entry[: len(unread) + 1].copy_(torch.tensor([length, *unread]), non_blocking=True)
        slate.begin(choice, text, uniforms)

        def call(rows: int, seen: int) -> tuple[Any, ...]:
            step = self._step(rows, seen, choice, slate, head)
            key, moved = ("draft", rows, seen, choice), (buffers.entry, slate.at)
            return key, step, self._other_numbers, moved

        if choice not in buffers.choices:  # not while a clock runs, once this was warmed up
            buffers.choices.add(choice)
            for usual, rows in product(_USUAL_ROOM, (1, 2)):
                buffers.graphs.prepare(*call(rows, usual))
        for rows in (len(unread), *[1] * (count - 1)):
            buffers.graphs.run(*call(rows, seen))
        self._length = total
        return slate.take(count, choice)

    def kept(self, make: Callable[[int], Any]) -> Any:
        """What stays as long as this session's buffers do, made once for them; None without any.

        `make` takes the most tokens that an article in these buffers has.
        """
        buffers = self._buffers
        if buffers.article is None:
            return None
        if buffers.head is None:
            buffers.head = make(buffers.article.keys.shape[3])
        return buffers.head

    def _step(
        self, count: int, seen: int, choice: Choice, slate: Slate, head: Head | None
    ) -> Callable[[], torch.Tensor]:
        """A call as in `_call` that then chooses a token, for the next call to read."""
        buffers, call = self._buffers, self._call(count, seen)

        def step() -> torch.Tensor:
            row = call()[-1]
            logits, shown = (row, row) if head is None else head(row)
            slate.go_on(buffers.entry, count, logits, choice)
            return shown

        return step

    def _call(self, count: int, seen: int, *, tree: bool = False) -> Callable[[], torch.Tensor]:
        """A call of `count` tokens that attends to the first `seen` places, for a graph.

        What it reads, and where, lies in the buffers' `entry`; of `_ROWS` tokens of a tree in
        `tree` as well.
        """
        buffers, decoder = self._buffers, self._decoder

        def call() -> torch.Tensor:
            ids = buffers.entry[1 : count + 1]
            places = buffers.entry[0] + torch.arange(count, device=decoder.device)
            if tree:
                bias = decoder._tree_bias(buffers.tree, buffers.entry[0], seen)
            else:
                columns = torch.arange(seen, device=decoder.device)
                bias = decoder._far(places[:, None] - columns)
            article = buffers.article
            assert article is not None, "buffers on CUDA hold an article"
            write, text = buffers.placed_writer(places), buffers.read(seen)
            return decoder._run(ids, _Place(write, *text, bias, article, buffers.article_mask))

        return call

    @contextmanager
    def _other_numbers(self) -> Iterator[None]:
        """Other tokens in the buffers' `entry`, and another place if there is one; other depths."""
        buffers = self._buffers
        kept = buffers.entry.clone()
        buffers.tree[:, 0] += 1
        buffers.entry[1:].add_(1).remainder_(len(self._decoder.embedding))
        if self._length + 2 * _ROWS < buffers.room:
            buffers.entry[0] += 1
        try:
            yield
        finally:
            buffers.entry.copy_(kept)
            buffers.tree[:, 0] -= 1


class _Place(NamedTuple):
    """Where a call stands.

    Attributes:
        write: takes a layer's index and the keys and values (T, 2 * inner) of the new tokens.
        keys: of the text for each layer, (1, heads, S, d_kv), the new tokens included; without the
            first dimension in float32 on a CPU. Values and article likewise.
        bias: of the attention to the text, (1, heads, T, S).
        mask: 0 where the article stands and -inf behind it; None where nothing is behind it.
    """

    write: Callable[[int, torch.Tensor], Any]
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    bias: torch.Tensor
    article: "Crossing | _Article"
    mask: torch.Tensor | None


class _Buffers:
    """Keys and values of a text, and on CUDA of an article, lent to one session at a time.

    Their shape is layers, heads, d_kv; they are where the decoder's embedding is, in its type.
    There is room for `sources` tokens of an article; 0 where sessions keep their own. `choices` are
    those for which drafts were captured, `head` is what a drafter keeps beside.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        embedding: torch.Tensor,
        sources: int,
        capturing: Capturing | None,
    ) -> None:
        layers, heads, width = shape
        room = _ROOM_ON_CUDA if sources else _ROOM
        # Zeros, not what lay in memory: a graph also reads places that it then weighs with 0.
        self._cache = embedding.new_zeros(layers, room, 2, heads, width)
        self._capturing = capturing
        self._slate: Slate | None = None
        self.head: Any = None
        self.article: Crossing | None = None
        if sources:
            held = embedding.new_zeros(2, layers, 1, heads, sources, width)
            self.article = Crossing(held[0], held[1])
            self.article_mask = embedding.new_zeros(1, 1, 1, sources)
            self.entry = torch.zeros(_ROWS + 1, dtype=torch.long, device=embedding.device)
            self.tree = tree_rows(range(-1, _ROWS - 1), _ROWS).to(embedding.device)
        self._arrange()

    @property
    def room(self) -> int:
        """How many tokens of text fit in."""
        return self._cache.shape[1]

    def grow(self, length: int, total: int) -> None:
        """Makes room for `total` tokens and keeps the first `length`."""
        room = self.room
        while room < total:
            room *= 2
        old = self._cache
        self._cache = old.new_zeros(old.shape[0], room, *old.shape[2:])
        self._cache[:, :length] = old[:, :length]
        self._arrange()

    def slate(self, size: int) -> Slate:
        """Where drafts over a vocabulary of this size are written."""
        if self._slate is None:
            self._slate = Slate(size, self._cache.dtype, self.room, self._cache.device)
        return self._slate

    def _arrange(self) -> None:
        self._slate = None  # graphs are bound to it, and its room is theirs
        self.choices: set[Choice] = set()
        # those there were are bound to the old place
        self.graphs = Graphs(self._capturing)
        self._rows = self._cache.flatten(2)
        self._heads = self._cache.permute(2, 0, 3, 1, 4)
        if not _unbatched(self._cache):
            self._heads = self._heads[:, :, None]

    def read(self, total: int) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Keys and values of the first `total` tokens for each layer: see `_Place`."""
        keys, values = self._heads[..., :total, :].unbind(0)
        return keys.unbind(0), values.unbind(0)

    def move(self, length: int, path: Sequence[int]) -> None:
        """Brings the rows at `path` behind `length` together there."""
        rows = self._rows[:, length:]
        where = torch.tensor(path).to(rows.device, non_blocking=True)
        rows[:, : len(path)] = rows.index_select(1, where)

    def writer(self, length: int, count: int) -> Callable[[int, torch.Tensor], Any]:
        """Writes the rows of `count` tokens behind `length`."""
        rows = self._rows[:, length : length + count].unbind(0)
        return lambda index, fresh: rows[index].copy_(fresh)

    def placed_writer(self, places: torch.Tensor) -> Callable[[int, torch.Tensor], Any]:
        """Writes rows to places that only the device knows."""
        rows = self._rows.unbind(0)
        return lambda index, fresh: rows[index].index_copy_(0, places, fresh)

    def hold(self, crossing: Crossing) -> None:
        """Takes an article over."""
        assert self.article is not None, "these buffers have no room for an article"
        count = crossing.keys.shape[3]
        for mine, given in zip(self.article, crossing, strict=True):
            mine[:, :, :, :count] = given
        self.article_mask.fill_(float("-inf"))
        self.article_mask[..., :count] = 0
        self.entry.zero_()  # a place that is in the room, for calls that are only captured


class _Layer(NamedTuple):
    """A layer of the decoder."""

    own: Matrix
    own_out: Matrix
    cross: Matrix
    cross_out: Matrix
    feed: FeedForward


def _layer(block: Any, config: Any) -> _Layer:
    own, cross, feed = block.layer
    attention, crossing = own.SelfAttention, cross.EncDecAttention
    build = partial(matrix, epsilon=config.layer_norm_epsilon)
    return _Layer(
        build([attention.q.weight, attention.k.weight, attention.v.weight], own.layer_norm.weight),
        build([attention.o.weight]),
        build([crossing.q.weight], cross.layer_norm.weight),
        build([crossing.o.weight]),
        FeedForward.of(feed, config),
    )


def _unbatched(tensor: torch.Tensor) -> bool:
    """Whether attention has no dimension for a batch: in float32 on a CPU, see `_attend`."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def _attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Attention of a few rows in float32 on a CPU, (heads, T, d_kv) to as much.

    With a row or a few the fused kernel takes longer.
    """
    across = keys.transpose(1, 2)
    scores = torch.bmm(query, across) if bias is None else torch.baddbmm(bias, query, across)
    return torch.bmm(scores.softmax(-1), values)


def _attend_batched(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """The same on CUDA and in half precision, (1, heads, T, d_kv) to as much."""
    return functional.scaled_dot_product_attention(query, keys, values, attn_mask=bias, scale=1.0)


def tree_rows(parents: Sequence[int], rows: int) -> torch.Tensor:
    """A tree as what its nodes see: shape (rows, 1 + rows), on the CPU.

    For each node how many ancestors it has; then for each node how many places back it is for this
    one: 0 for itself, -1 where it is no ancestor. `parents` are places, -1 for the text; further
    nodes, up to `rows`, continue the text, unseen.
    """
    found: list[list[int]] = []
    for node, parent in enumerate([*parents, *[-1] * (rows - len(parents))]):
        before = found[parent][1:] if parent >= 0 else [-1] * rows
        row = [place + 1 if place >= 0 else -1 for place in before]
        row[node] = 0
        found.append([found[parent][0] + 1 if parent >= 0 else 0, *row])
    return torch.tensor(found)


def bucket(count: int) -> int:
    """The least power of two that is at least `count`, and at least 64.

    Articles, and texts, of up to so many tokens share the graphs of one of `count` tokens.
    """
    return max(64, 1 << (count - 1).bit_length())
