"""The decoder of a T5, written out over buffers that stay: the fast path at batch 1.

`generate` of transformers pays for modules, hooks and caches that grow; a small decoder spends more
on these than on arithmetic. Here the same weights are fused (query, key and value; the two halves
of a gate), the article's keys and values are computed once, position biases lie ready in a table,
and any number of new tokens costs one call. Going back is setting a length. On CUDA, calls of a
few tokens are graphs (`fastllm.targets.graphs`), bound to buffers that a pool lends to one session
at a time.

The encoder stays that of transformers. What cannot be decoded here (quantised weights, models that
are no T5, a model on several devices) `unfit` names; the general path of `fastllm.targets.hub`
serves these.
"""

import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch.nn import functional
from transformers import T5ForConditionalGeneration

from fastllm.devices import aligned, prepare
from fastllm.errors import SettingsError
from fastllm.targets.graphs import Capturing, Graphs
from fastllm.targets.slate import Choice, Slate, Written

_ROOM = 128
"""Tokens that a session has room for at first; it doubles as needed."""

_ROOM_ON_CUDA = 256
"""The same there, where more room costs the graphs: the longest text that is usually asked for."""

_USUAL_ROOM = (64, 128, 256)
"""How many places the graphs attend to that are made ahead; a longer text makes its own."""

_ROWS = 16
"""Calls of up to so many tokens find their position biases ready, and are graphs on CUDA."""

GRAPHS = not os.environ.get("SPACES_ZERO_GPU") and os.environ.get("FASTLLM_GRAPHS") != "0"
"""Whether calls are captured: not where a GPU is lent (ZeroGPU), to a process that is soon gone."""

_USUAL = range(1, 10)
"""How many tokens calls usually have, a draft of eight and the token before it at most. These are
warmed up when the decoder is made (CPU), or when buffers are (CUDA): not while a clock runs."""

_TWICE = 1 << 24
"""A matrix of more numbers is kept in one layout alone: a second one would cost much memory."""

_ACTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu_,
    "gelu_new": partial(functional.gelu, approximate="tanh"),
    "gelu": functional.gelu,
    "silu": partial(functional.silu, inplace=True),
}
"""The activations by the name that a configuration gives them."""


def unfit(model: Any) -> str:
    """Why a model cannot be decoded here, in words; empty where it can."""
    if type(model) is not T5ForConditionalGeneration:
        return f"it is a {type(model).__name__}, not a T5ForConditionalGeneration"
    if getattr(model, "hf_quantizer", None) is not None:
        return "its weights are quantised"
    if len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1:
        return "it is spread over several devices"
    config = model.config
    if config.dense_act_fn not in _ACTS:
        return f"its activation is {config.dense_act_fn}"
    for name, module in model.decoder.named_modules():
        # a LoRA adapter, a quantised layer or a bias would be passed over
        if hasattr(module, "weight") and type(module).__name__ not in (
            "Linear",
            "Embedding",
            "T5LayerNorm",
        ):
            return f"decoder.{name} is a {type(module).__name__}"
    parameters = dict(model.decoder.named_parameters()) | {"lm_head": model.lm_head.weight}
    devices = {weight.device.type for weight in parameters.values()}
    if not devices <= {"cpu", "cuda"} or len(devices) > 1:
        return f"its decoder is on {', '.join(sorted(devices))}"
    leave = {weight.dtype for name, weight in parameters.items() if name.endswith("wo.weight")}
    rest = {weight.dtype for name, weight in parameters.items() if not name.endswith("wo.weight")}
    if (rest, leave) not in (
        ({torch.float32}, {torch.float32}),
        ({torch.bfloat16}, {torch.bfloat16}),
        ({torch.float16}, {torch.float32}),
    ):
        return f"its weights are {_names(rest)}, `wo` {_names(leave)}"
    return ""


def require_fit(model: Any) -> None:
    """Refuses a model that cannot be decoded here.

    Raises:
        SettingsError: says why.
    """
    reason = unfit(model)
    if reason:
        raise SettingsError(
            f"the static engine does not fit this model: {reason}. Take engine='transformers', or "
            "'auto', which chooses."
        )


class Crossing(NamedTuple):
    """What the decoder's layers attend to of an article.

    Attributes:
        keys: shape (layers, 1, heads, S, d_kv).
        values: likewise.
    """

    keys: torch.Tensor
    values: torch.Tensor


class StaticDecoder:
    """The decoder of a T5. Weights are copied where they are fused: later changes do not reach it.

    Args:
        model: a T5ForConditionalGeneration, v1.0 or v1.1, on one device, in float32, bfloat16 or
            float16 (`wo` in float32, as transformers loads it).

    Attributes:
        embedding: a row for each token, (V, d).
        device: where it is.
        dtype: of the weights, and of the logits.
        size: V, how many logits a row has.

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
        self._heads = int(config.num_heads)
        self._width = int(config.d_kv)
        self._inner = self._heads * self._width
        self._act = _ACTS[config.dense_act_fn]
        # Where `wo` is float32, so is what it is added to, from the first layer on.
        self._flow = blocks[0].layer[-1].DenseReluDense.wo.weight.dtype
        packed = self.device.type == "cpu" and self.dtype == torch.float32 and _can_pack()
        build = _Packed if packed else _Dense
        epsilon = config.layer_norm_epsilon
        self._layers = [_layer(block, partial(build, epsilon=epsilon)) for block in blocks]
        scale = config.d_model**-0.5 if config.scale_decoder_outputs else 1.0
        self._last = build(
            [model.lm_head.weight], model.decoder.final_layer_norm.weight, scale, epsilon=epsilon
        )
        crossing = [block.layer[1].EncDecAttention for block in blocks]
        self._crossing = torch.cat([part for a in crossing for part in (a.k.weight, a.v.weight)])
        if packed:
            for matrix in (*self._layers[0][:6], self._last):
                for count in _USUAL:
                    matrix(torch.zeros(count, matrix.inputs))
        first = blocks[0].layer[0].SelfAttention
        farthest = int(config.relative_attention_max_distance)
        nearest_last = first.compute_bias(1, farthest + 1, past_seen_tokens=farthest)[0, :, 0]
        barred = nearest_last.new_full((self._heads, 1), float("-inf"))
        # The bias towards the token 0, 1, 2 ... places back; what is farther has the last but one
        # entry, what lies ahead the last.
        self._biases = torch.cat([nearest_last.flip(-1), barred], -1)
        self.size = len(model.lm_head.weight)
        self._tables: dict[int, torch.Tensor] = {}
        self._pool: dict[int, list[_Buffers]] = {}
        self._capturing = Capturing(self.device) if GRAPHS and self.device.type == "cuda" else None

    @property
    def graphs_failure(self) -> str:
        """Why CUDA graphs were given up; empty where they are used, or were never to be."""
        return self._capturing.failure if self._capturing is not None else ""

    @torch.inference_mode()
    def remember(self, states: torch.Tensor) -> Crossing:
        """The keys and values of an article, from the encoder's output (1, S, d)."""
        rows = functional.linear(states[0].to(self.dtype), self._crossing)
        shape = (rows.shape[0], len(self._layers), 2, 1, self._heads, self._width)
        keys, values = rows.view(shape).permute(2, 1, 3, 4, 0, 5).contiguous().unbind(0)
        return Crossing(keys, values)

    def begin(self, crossing: Crossing) -> "StaticSession":
        """A fresh session over an article; its buffers come from the pool and go back there."""
        return StaticSession(self, crossing)

    def _lend(self, crossing: Crossing) -> tuple["_Buffers", list["_Buffers"]]:
        """Buffers for a session, and the list to which they are to go back."""
        # Graphs read an article from a place of their own, of a few sizes.
        sources = 0 if self._capturing is None else bucket(crossing.keys.shape[3])
        free = self._pool.setdefault(sources, [])
        try:
            return free.pop(), free
        except IndexError:
            shape = (len(self._layers), 2, self._heads, self._width)
            return _Buffers(shape, self.dtype, self.device, sources, self._capturing), free

    def _bias(self, room: int, length: int, count: int) -> torch.Tensor:
        """Biases of `count` tokens behind `length` towards all up to themselves.

        Shape (1, heads, count, length + count); of a table, since what a token adds to a score
        depends on its distance alone.
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
        """Biases of the nodes of a tree behind `length` tokens towards the first `seen` places.

        Shape (1, heads, count, seen): towards the text and the own ancestors by how many tokens
        lie between, minus infinity towards all else. `tree` is what `tree_rows` gives.
        """
        count = len(tree)
        ahead = torch.arange(seen, device=tree.device) - length
        own = tree.index_select(1, ahead.clamp(0, count - 1) + 1)
        back = torch.where(ahead < 0, tree[:, :1] - ahead, own.masked_fill(ahead >= count, -1))
        return self._far(back)

    def _run(self, ids: torch.Tensor, place: "_Place") -> torch.Tensor:
        """One call: the logits (T, V) behind the tokens `ids` (T,)."""
        attend = functional.scaled_dot_product_attention
        count, inner = len(ids), self._inner
        shape = (1, count, self._heads, self._width)
        flow = functional.embedding(ids, self.embedding).to(self._flow)
        for index, layer in enumerate(self._layers):
            entry = layer.own(flow)
            place.write(index, entry[:, inner:])
            found = attend(
                entry[:, :inner].view(shape).transpose(1, 2),
                place.keys[index],
                place.values[index],
                attn_mask=place.bias,
                scale=1.0,
            )
            layer.own_out.add(flow, found.transpose(1, 2).reshape(count, inner))
            found = attend(
                layer.cross(flow).view(shape).transpose(1, 2),
                place.article.keys[index],
                place.article.values[index],
                attn_mask=place.mask,
                scale=1.0,
            )
            layer.cross_out.add(flow, found.transpose(1, 2).reshape(count, inner))
            between = layer.enter(flow)
            if layer.gated:
                gate, between = between.chunk(2, -1)
                between = self._act(gate) * between
            else:
                between = self._act(between)
            layer.leave.add(flow, between)
        return self._last(flow)


class StaticSession:
    """One decoding in progress.

    Args:
        decoder: whose weights to use.
        crossing: the article, from `decoder.remember`.
    """

    @torch.inference_mode()
    def __init__(self, decoder: StaticDecoder, crossing: Crossing) -> None:
        self._decoder = decoder
        self._article = crossing
        self._length = 0
        self._buffers, home = decoder._lend(crossing)
        weakref.finalize(self, home.append, self._buffers).atexit = False
        if self._buffers.article is not None:
            self._buffers.hold(crossing)
            if self._buffers.graphs is not None:
                for seen in _USUAL_ROOM:
                    for count in _USUAL:
                        self._buffers.graphs.prepare(
                            (count, seen), self._call(count, seen), self._other_numbers
                        )

    trees = True

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
        if parents is not None:
            return self._forward_tree(ids, parents)
        length, count = self._length, len(ids)
        total = length + count
        buffers, decoder = self._buffers, self._decoder
        if total > buffers.room:
            buffers.grow(length, total)
        if buffers.graphs is not None and not decoder.graphs_failure and count <= _ROWS:
            seen = min(_power(total), buffers.room)
            buffers.entry[: count + 1].copy_(torch.tensor([length, *ids]), non_blocking=True)
            logits = buffers.graphs.replay(
                (count, seen), self._call(count, seen), self._other_numbers
            )
        else:
            place = _Place(
                buffers.writer(length, count),
                *buffers.read(total),
                decoder._bias(buffers.room, length, count),
                self._article,
                None,
            )
            logits = decoder._run(torch.tensor(ids, device=decoder.device), place)
        self._length = total
        return logits

    def _forward_tree(self, ids: list[int], parents: Sequence[int]) -> torch.Tensor:
        """`forward` of a tree. On CUDA all of up to `_ROWS` tokens share the graph of so many."""
        length, count = self._length, len(ids)
        buffers, decoder = self._buffers, self._decoder
        graphs = buffers.graphs if not decoder.graphs_failure and count <= _ROWS else None
        rows = count if graphs is None else _ROWS
        total = length + rows
        if total > buffers.room:
            buffers.grow(length, total)
        tree = tree_rows(parents, rows)
        if graphs is not None:
            seen = min(_power(total), buffers.room)
            padded = [length, *ids, *[ids[-1]] * (rows - count)]
            buffers.entry.copy_(torch.tensor(padded), non_blocking=True)
            buffers.tree.copy_(tree, non_blocking=True)
            call = self._call(rows, seen, tree=True)
            logits = graphs.replay(("tree", seen), call, self._other_numbers)[:count]
        else:
            place = _Place(
                buffers.writer(length, count),
                *buffers.read(total),
                decoder._tree_bias(tree.to(decoder.device), length, total),
                self._article,
                None,
            )
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
        head: "Head | None" = None,
    ) -> Written | None:
        """Reads what is missing of a text, at least a token, and drafts behind it.

        All tokens of the draft but the last are in the cache afterwards.

        Args:
            text: the start token and everything behind it.
            count: how many tokens to draft.
            choice: how they are chosen.
            uniforms: of the draws, on the host.
            head: what makes logits of the decoder's rows; None where these are logits.

        Returns:
            The draft; None where it cannot be written on the device.
        """
        buffers, decoder = self._buffers, self._decoder
        unread = list(text[self._length :])
        total = len(text) + count - 1
        if buffers.graphs is None or decoder.graphs_failure:
            return None
        if total > buffers.room:
            buffers.grow(self._length, total)
        slate = buffers.slate(decoder.size)
        if not slate.fits(choice, total):
            return None
        if len(unread) > 2:
            self.forward(unread[:-1])
            unread = unread[-1:]
        length = self._length
        seen = min(_power(total), buffers.room)
        buffers.entry[: len(unread) + 1].copy_(torch.tensor([length, *unread]), non_blocking=True)
        slate.begin(choice, text, uniforms)
        if choice not in buffers.choices:  # not while a clock runs, once this was warmed up
            buffers.choices.add(choice)
            for usual in _USUAL_ROOM:
                for rows in (1, 2):
                    step = self._step(rows, usual, choice, slate, head)
                    moved = (buffers.entry, slate.at)
                    buffers.graphs.prepare(
                        ("draft", rows, usual, choice), step, self._other_numbers, moved
                    )
        for rows in (len(unread), *[1] * (count - 1)):
            buffers.graphs.run(
                ("draft", rows, seen, choice),
                self._step(rows, seen, choice, slate, head),
                self._other_numbers,
                (buffers.entry, slate.at),
            )
        self._length = total
        return slate.take(count, choice)

    def kept(self, make: "Callable[[int], Any]") -> Any:
        """What stays as long as this session's buffers do, made once for them; None without any.

        Args:
            make: takes the most tokens that an article in these buffers has.
        """
        buffers = self._buffers
        if buffers.article is None:
            return None
        if buffers.head is None:
            buffers.head = make(buffers.article.keys.shape[3])
        return buffers.head

    def _step(
        self, count: int, seen: int, choice: Choice, slate: Slate, head: "Head | None"
    ) -> Callable[[], torch.Tensor]:
        """A call as in `_call` that then chooses a token, for the next call to read."""
        buffers, call = self._buffers, self._call(count, seen)

        def step() -> torch.Tensor:
            row = call()[-1]
            logits, shown = (row, row) if head is None else head(row)
            places = buffers.entry[:1] + count
            token = slate.choose(logits, places, choice)
            buffers.entry[:1].copy_(places)
            buffers.entry[1:2].copy_(token)
            return shown

        return step

    def _call(self, count: int, seen: int, *, tree: bool = False) -> Callable[[], torch.Tensor]:
        """A call of `count` tokens that attends to the first `seen` places, for a graph.

        Where it stands and what it reads lies on the device, in the buffers' `entry`; of a tree of
        `_ROWS` tokens in `tree` as well.
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
            place = _Place(
                buffers.placed_writer(places),
                *buffers.read(seen),
                bias,
                article,
                buffers.article_mask,
            )
            return decoder._run(ids, place)

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


Head = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Makes of a row (d,) the logits (V,), and numbers that tell whether they are right: all finite.
On CUDA it reads memory that stays as long as the buffers of a session do."""


class _Place(NamedTuple):
    """Where a call stands.

    Attributes:
        write: takes a layer's index and the keys and values (T, 2 * inner) of the new tokens.
        keys: of the text for each layer, (1, heads, S, d_kv), the new tokens included.
        values: likewise.
        bias: of the attention to the text, (1, heads, T, S).
        article: what the layers attend to of the article.
        mask: 0 where the article stands and -inf behind it; None where nothing is behind it.
    """

    write: Callable[[int, torch.Tensor], Any]
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    bias: torch.Tensor
    article: Crossing
    mask: torch.Tensor | None


class _Buffers:
    """Keys and values of a text, and on CUDA of an article, lent to one session at a time.

    Args:
        shape: layers, 2, heads, d_kv.
        dtype: of the numbers.
        device: where.
        sources: room for an article; 0 where sessions keep their own.
        capturing: of the decoder; None where nothing is captured.

    Attributes:
        graphs: of calls over these buffers; None where nothing is captured.
        choices: those for which drafts were captured.
        head: what a drafter keeps beside; None before it was made.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        dtype: torch.dtype,
        device: torch.device,
        sources: int,
        capturing: Capturing | None,
    ) -> None:
        layers, _, heads, width = shape
        options: Any = {"dtype": dtype, "device": device}
        room = _ROOM_ON_CUDA if sources else _ROOM
        # Zeros, not what lay in memory: a graph also reads places that it then weighs with 0.
        self._cache = torch.zeros(layers, room, 2, heads, width, **options)
        self._capturing = capturing
        self._slate: Slate | None = None
        self.head: Any = None
        self.article: Crossing | None = None
        if sources:
            held = torch.zeros(2, layers, 1, heads, sources, width, **options)
            self.article = Crossing(held[0], held[1])
            self.article_mask = torch.zeros(1, 1, 1, sources, **options)
            self.entry = torch.zeros(_ROWS + 1, dtype=torch.long, device=device)
            self.tree = tree_rows(range(-1, _ROWS - 1), _ROWS).to(device)
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
        self.graphs = None if self._capturing is None else Graphs(self._capturing)
        self._rows = self._cache.flatten(2)
        self._heads = self._cache.permute(2, 0, 3, 1, 4)[:, :, None]

    def read(self, total: int) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Keys and values of the first `total` tokens for each layer, (1, heads, total, d_kv)."""
        keys, values = self._heads[:, :, :, :, :total].unbind(0)
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


class _Matrix(Protocol):
    """A matrix (out, in) with the norm before it, if any.

    Attributes:
        inputs: how many numbers a row has that it is multiplied with.
    """

    inputs: int

    def __call__(self, flow: torch.Tensor) -> torch.Tensor:
        """Rows (T, in), normalised first if there is a norm, to (T, out)."""

    def add(self, flow: torch.Tensor, rows: torch.Tensor) -> None:
        """Adds the product with rows (T, in) to `flow` (T, out)."""


class _Dense:
    """The plain way, for CUDA and for half precision.

    Args:
        weights: stacked to one matrix (out, in).
        norm: the weights of the norm before it.
        scale: multiplies what comes from the norm.
        epsilon: of the norm.
    """

    def __init__(
        self,
        weights: list[torch.Tensor],
        norm: torch.Tensor | None = None,
        scale: float = 1.0,
        *,
        epsilon: float,
    ) -> None:
        self._weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        self.inputs = self._weight.shape[1]
        self._across = self._weight.t()
        self._norm = norm
        self._wide_norm = None if norm is None else norm.float()
        self._scale = scale
        self._epsilon = epsilon

    def __call__(self, flow: torch.Tensor) -> torch.Tensor:
        if self._norm is not None:
            norm = self._norm if flow.dtype == self._norm.dtype else self._wide_norm
            flow = functional.rms_norm(flow, (flow.shape[-1],), norm, self._epsilon)
            flow = flow.to(self._norm.dtype)
            if self._scale != 1.0:
                flow = flow * self._scale
        return functional.linear(flow, self._weight)

    def add(self, flow: torch.Tensor, rows: torch.Tensor) -> None:
        if flow.dtype == rows.dtype == self._weight.dtype:
            flow.addmm_(rows, self._across)
        else:  # float16: `wo` and what it is added to are float32, the rest is not
            flow.add_(functional.linear(rows.to(self._weight.dtype), self._weight))


class _Packed:
    """The fast way in float32 on a CPU: the norm's weights folded in, the matrix laid out anew.

    For several rows oneDNN reads a matrix in blocks, in half the time that `linear` takes; for a
    single row the transposed matrix is faster still, if it is wide. (256 x 8192 on one core of an
    AMD EPYC: one row 1.04 ms with `linear`, 0.68 in blocks, 0.37 transposed; six rows 1.87, 0.63,
    1.38.) So matrices that are not huge are kept both ways.

    Args: those of `_Dense`.
    """

    def __init__(
        self,
        weights: list[torch.Tensor],
        norm: torch.Tensor | None = None,
        scale: float = 1.0,
        *,
        epsilon: float,
    ) -> None:
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        self._normed = norm is not None
        if norm is not None:
            # x / sqrt(mean(x^2) + e) = sqrt(d) * x / sqrt(|x|^2 + d * e)
            size = len(norm)
            weight = weight * (norm * (scale * size**0.5))
            self._floor = torch.tensor((size * epsilon) ** 0.5)
        outputs, self.inputs = weight.shape
        self._blocks = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 8)
        self._across: torch.Tensor | None = None
        if outputs <= self.inputs and not self._normed:
            self._across = weight.t()  # the model's own memory
        elif weight.numel() <= _TWICE:
            self._across = weight.t().contiguous()

    def __call__(self, flow: torch.Tensor) -> torch.Tensor:
        if self._normed:
            length = torch.linalg.vector_norm(flow, dim=-1, keepdim=True)
            flow = flow / torch.hypot(length, self._floor)
        if len(flow) == 1 and self._across is not None:
            return torch.mm(flow, self._across)
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            flow, self._blocks, None, "none", [], ""
        )
        return product

    def add(self, flow: torch.Tensor, rows: torch.Tensor) -> None:
        if len(flow) == 1 and self._across is not None:
            flow.addmm_(rows, self._across)
        else:
            flow.add_(torch.ops.mkldnn._linear_pointwise(rows, self._blocks, None, "none", [], ""))


class _Layer(NamedTuple):
    """A layer of the decoder."""

    own: _Matrix
    own_out: _Matrix
    cross: _Matrix
    cross_out: _Matrix
    enter: _Matrix
    leave: _Matrix
    gated: bool


def _layer(block: Any, build: Callable[..., _Matrix]) -> _Layer:
    own, cross, feed = block.layer
    attention, crossing, inner = own.SelfAttention, cross.EncDecAttention, feed.DenseReluDense
    gated = hasattr(inner, "wi_0")
    enter = [inner.wi_0.weight, inner.wi_1.weight] if gated else [inner.wi.weight]
    build = _unless_empty(build)
    return _Layer(
        build([attention.q.weight, attention.k.weight, attention.v.weight], own.layer_norm.weight),
        build([attention.o.weight]),
        build([crossing.q.weight], cross.layer_norm.weight),
        build([crossing.o.weight]),
        build(enter, feed.layer_norm.weight),
        build([inner.wo.weight]),
        gated,
    )


class _Nothing:
    """A matrix of a sublayer of which a pruned decoder keeps nothing."""

    inputs = 0

    def __call__(self, flow: torch.Tensor) -> torch.Tensor:
        return flow.new_zeros(len(flow), 0)

    def add(self, flow: torch.Tensor, rows: torch.Tensor) -> None:
        pass


def _unless_empty(build: Callable[..., _Matrix]) -> Callable[..., _Matrix]:
    """The same, but for matrices without numbers."""

    def made(weights: list[torch.Tensor], *more: Any) -> _Matrix:
        return build(weights, *more) if weights[0].numel() else _Nothing()

    return made


def _can_pack() -> bool:
    """Whether this build of torch has oneDNN's packed matrices."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return bool(torch.backends.mkldnn.enabled) and all(
        hasattr(torch.ops.mkldnn, name) for name in names
    )


def tree_rows(parents: Sequence[int], rows: int) -> torch.Tensor:
    """A tree as what its nodes see: shape (rows, 1 + rows), on the CPU.

    Args:
        parents: of each node the place of the one before it; -1 for the text.
        rows: how many nodes, at least those given; further ones continue the text, unseen.

    Returns:
        For each node how many ancestors it has; then for each node how many places back it is for
        this one: 0 for itself, -1 where it is no ancestor.
    """
    found: list[list[int]] = []
    for node, parent in enumerate([*parents, *[-1] * (rows - len(parents))]):
        before = found[parent][1:] if parent >= 0 else [-1] * rows
        row = [place + 1 if place >= 0 else -1 for place in before]
        row[node] = 0
        found.append([found[parent][0] + 1 if parent >= 0 else 0, *row])
    return torch.tensor(found)


def bucket(count: int) -> int:
    """Articles of up to so many tokens share the graphs of one of `count` tokens."""
    return _power(count)


def _power(count: int) -> int:
    """The least power of two that is at least `count`, and at least 64."""
    return max(64, 1 << (count - 1).bit_length())


def _names(dtypes: set[torch.dtype]) -> str:
    return " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
