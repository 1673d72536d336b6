"""What every neural drafter shares: the model's contract, the decoding session, saving, loading.

A model reads an article once (`remember`) and then one token a step, at a cost that does not grow
with the text. Training uses `forward` over whole sequences; decoding and on-policy rollouts use
`step`. The two give the same logits. A single text on a CPU is drafted by a `OneText` where the
family has one: the same arithmetic again, over weights laid out for one row.
"""

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch.nn.utils.rnn import pad_sequence

from fastllm.decoding.distributions import drawn, most_likely, ruled_distribution
from fastllm.decoding.proposals import DenseProposal, Draft, OneHotProposal
from fastllm.decoding.rules import Rules, agreeing, end_set
from fastllm.drafters import DrafterSession
from fastllm.drafters.length import LengthRule, confidence, falls_back
from fastllm.drafters.lookup import ArticleLookup
from fastllm.drafters.width import fitted
from fastllm.errors import CheckpointError, NotFiniteError, SettingsError
from fastllm.files import write_json
from fastllm.targets import Encoding, Target
from fastllm.targets.encodings import without_padding
from fastllm.targets.slate import Choice, Written
from fastllm.trace import DecodingConfig

State = Any
"""What a model carries from token to token: tensors whose first dimension is the batch."""

Memory = Any
"""What a model keeps of the article, computed once."""


class NeuralModel(Protocol):
    """A drafter network that reads token by token; a state stays what it is when read from."""

    def remember(self, source: torch.Tensor) -> Memory:
        """Reads articles: ids (B, S), padded with 0."""

    def begin(self, memory: Memory) -> State:
        """The state before the first token."""

    def step(self, memory: Memory, state: State, ids: torch.Tensor) -> tuple[torch.Tensor, State]:
        """Reads one token of each text, ids (B,); returns features (B, d) and the next state."""

    def read(
        self, memory: Memory, state: State, ids: torch.Tensor
    ) -> tuple[torch.Tensor, list[State]]:
        """Reads T tokens of each text, ids (B, T): features (B, T, d), a state behind each."""

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Features (..., d) to logits (..., V)."""

    def forward(self, source: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, V) behind every token of prefix (B, T), which begins with the start id."""

    def frozen(self) -> "ArticleText | None":
        """The network for one text with the weights as they are; None where it has no such form."""


class OneText(ABC):
    """A drafter network that reads one text, token ids as plain numbers.

    It serves the weights that it was made from: changed ones need another. A state stays what it is
    when read from.
    """

    device = torch.device("cpu")
    """Where its logits are."""

    drafts = False
    """Whether drafts may be written on the device, by a session there; states are then lengths."""

    reads_at_once = False
    """Whether several tokens are read in one call, rather than one after the other."""

    @abstractmethod
    def begin(self, memory: Memory) -> State:
        """The state before the first token."""

    @abstractmethod
    def read(
        self, memory: Memory, state: State, tokens: Sequence[int]
    ) -> tuple[Sequence[Any], Sequence[State]]:
        """Reads tokens, at least one; returns the features and the state behind each."""

    @abstractmethod
    def logits(self, features: Any) -> torch.Tensor:
        """The features behind a token to logits (V,)."""

    def draft(
        self,
        memory: Memory,
        state: State,
        text: Sequence[int],
        count: int,
        choice: Choice,
        uniforms: torch.Tensor,
    ) -> Written | None:
        """Writes `count` tokens behind a text on the device, where `drafts` says that it may.

        The text is the start token and everything behind it; at least its last token is read, and
        all of the draft but its last. None where it cannot be written there.
        """
        memory.rollback(state)
        found: Written | None = memory.draft(text, count, choice, uniforms)
        return found


class ArticleText(OneText):
    """A `OneText` that reads the article itself, which is what `NeuralDrafter.begin` asks for."""

    @abstractmethod
    def remember(self, source_ids: Sequence[int]) -> Memory:
        """Reads an article without padding."""


class _Row(OneText):
    """A `NeuralModel` as a `OneText`: batches of one."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.device = next(model.parameters()).device

    def begin(self, memory: Memory) -> State:
        return self._model.begin(memory)

    def read(
        self, memory: Memory, state: State, tokens: Sequence[int]
    ) -> tuple[Sequence[Any], Sequence[State]]:
        if len(tokens) == 1:
            ids = torch.tensor(tokens, device=self.device)
            features, state = self._model.step(memory, state, ids)
            return [features], [state]
        ids = torch.tensor([tokens], device=self.device)
        features, states = self._model.read(memory, state, ids)
        return features.unbind(1), states

    def logits(self, features: Any) -> torch.Tensor:
        logits: torch.Tensor = self._model.logits(features)
        return logits[0]


class Memo:
    """What was made of a network's weights, by name, until these change.

    Training changes weights in place, and what is moved or replaced lies elsewhere: both show.
    """

    def __init__(self) -> None:
        self._marks: list[tuple[int, int]] = []
        self._held: list[Any] = []
        self._made: dict[str, Any] = {}

    def get(self, name: str, model: Any, make: Callable[[], Any]) -> Any:
        """What `make` gave for these weights of the network."""
        weights = list(model.parameters())
        marks = [(weight.data_ptr(), weight._version) for weight in weights]
        if marks != self._marks:
            # Held, so that nothing else can come to lie at the same address.
            self._marks, self._held = marks, [weight.untyped_storage() for weight in weights]
            self._made = {}
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]


Settings = TypeVar("Settings")

STARTS = ("copying", "ordinary")
"""Initial weights: with an induction head laid down, so that copying comes first; or as usual."""


@dataclass
class NeuralDrafter(Generic[Settings]):
    """A neural network, in evaluation mode, as a drafter; see `fastllm.drafters.Drafter`."""

    model: Any
    settings: Settings
    name: str
    vocabulary: str
    draft_temperature: float | None = None

    FAMILY: ClassVar[str]
    SETTINGS: ClassVar[type]
    MODEL: ClassVar[Any]

    _memo: Memo = field(default_factory=Memo, init=False, repr=False, compare=False)

    @classmethod
    def fresh(
        cls,
        vocabulary_size: int,
        *,
        seed: int = 0,
        start_id: int = 0,
        full_stop: int = 0,
        start: str = "copying",
        name: str = "",
        vocabulary: str = "",
        **settings: Any,
    ) -> Self:
        """A drafter to be trained: the same arguments give the same weights.

        Args:
            vocabulary_size: how many logits the target has.
            seed: of the initial weights.
            start_id: the token before every text.
            full_stop: ends a sentence; with the copying start a text begins as what follows it.
            start: a name of STARTS.
            name: what to call it; the family by default.
            vocabulary: the fingerprint of the target's vocabulary.
            settings: the family's own sizes, where they are not to be the usual ones.

        Raises:
            SettingsError: there is no such start, or a size that the family does not have.
        """
        if start not in STARTS:
            raise SettingsError(f"start={start!r}: give one of {', '.join(STARTS)}.")
        known = [entry.name for entry in fields(cls.SETTINGS)]
        if "start_id" in known:
            settings = {"start_id": start_id, **settings}
        try:
            sizes: Settings = cls.SETTINGS(vocabulary_size=vocabulary_size, **settings)
        except TypeError as error:
            raise SettingsError(
                f"a {cls.FAMILY} drafter has the sizes {', '.join(known)} ({error})."
            ) from error
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay its own
            torch.manual_seed(seed)
            model = cls.MODEL(sizes)
        if start == "copying":
            model.start_copying(torch.Generator().manual_seed(seed), start_id, full_stop)
        return cls(model.eval(), sizes, name or cls.FAMILY, vocabulary)

    @classmethod
    def load(cls, folder: str | Path, *, device: str | torch.device | None = None) -> Self:
        """Loads a folder that `save` wrote.

        Raises:
            CheckpointError: it is incomplete, damaged, or of another shape.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            settings = cls._read_settings(config["settings"])
            known = settings, config["name"], config["vocabulary"], config.get("draft_temperature")
            drafter = cls(cls.MODEL(settings).eval(), *known)
            weights = load_file(folder / "model.safetensors")
            if weights.keys() != drafter._own_weights().keys():
                raise CheckpointError("its weights have other names")
            given = {name: tensor.float() for name, tensor in weights.items()}
            drafter.model.load_state_dict(given, strict=False)  # the rest is its target's
        except Exception as error:  # safetensors, json and torch raise unrelated kinds
            raise CheckpointError(
                f"{folder} is not a whole {cls.FAMILY} drafter ({type(error).__name__}: {error}). "
                "It needs config.json and model.safetensors as `fastllm train` writes them."
            ) from error
        drafter.model.to(device or "cpu")
        drafter._one_text()  # made now, and on nobody's clock
        return drafter

    @classmethod
    def _read_settings(cls, written: dict[str, Any]) -> Settings:
        """The settings as a checkpoint has them."""
        settings: Settings = cls.SETTINGS(**written)
        return settings

    def save(self, folder: str | Path, *, dtype: torch.dtype = torch.bfloat16) -> None:
        """Writes `config.json` and the weights, rounded to `dtype`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        own = self._own_weights()
        weights = {n: weight.detach().to("cpu", dtype).contiguous() for n, weight in own.items()}
        save_file(weights, folder / "model.safetensors")
        sizes = asdict(self.settings)  # type: ignore[call-overload]
        write_json(folder / "config.json", self._header() | {"settings": sizes})

    def _header(self) -> dict[str, Any]:
        """What a checkpoint says of a drafter of any family."""
        found: dict[str, Any] = {"family": self.FAMILY, "name": self.name}
        found["vocabulary"] = self.vocabulary
        if self.draft_temperature is not None:
            found["draft_temperature"] = self.draft_temperature
        return found

    def bind(self, target: Target) -> None:
        """Takes what it needs from its target before training; most networks need nothing."""

    @property
    def parameters(self) -> int:
        """How many weights the network has."""
        return sum(weight.numel() for weight in self.model.parameters())

    def _own_weights(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds, by name."""
        weights: dict[str, torch.Tensor] = self.model.state_dict()
        return weights

    def _rounded_for(self, encoding: Encoding) -> Self:
        """This drafter as it drafts for a target: on CUDA in bfloat16 where the target is.

        Half the bytes are read a token. In float16 the layers of a T5 overflow: then it stays as
        it is.
        """
        weight, states = next(self.model.parameters()), encoding.states
        wanted = torch.bfloat16
        if weight.device.type != "cuda" or weight.dtype == wanted or states.dtype != wanted:
            return self

        def rounded() -> Any:
            return replace(self, model=copy.deepcopy(self.model).to(wanted).eval())

        with torch.inference_mode(False):  # what is made there nobody can tell from changed weights
            found: Self = self._memo.get("rounded", self.model, rounded)
            return found

    @torch.inference_mode()
    def begin(self, encoding: Encoding) -> DrafterSession:
        """Reads the article."""
        drafter = self._rounded_for(encoding)
        if drafter is not self:
            return drafter.begin(encoding)
        fast = self._one_text()
        article = without_padding(encoding.source_ids)  # as in training
        if fast is not None:
            return self._session(fast, fast.remember(article), encoding)
        device = next(self.model.parameters()).device
        source = torch.tensor([article], device=device)
        return self._session(self.model, self.model.remember(source), encoding)

    def _session(self, model: Any, memory: Memory, encoding: Encoding) -> DrafterSession:
        """A session over an article that was read by a `OneText`, or a `NeuralModel`."""
        # One call over several tokens is dearer than over one, but not by much.
        ahead = isinstance(model, OneText) and model.reads_at_once
        lookup = ArticleLookup().begin(encoding) if ahead else None
        session = NeuralSession(
            model, memory, encoding.end_id, lookup, draft_temperature=self.draft_temperature
        )
        size: int = self.settings.vocabulary_size  # type: ignore[attr-defined]  # of every family
        return fitted(session, size, encoding)

    def _one_text(self) -> ArticleText | None:
        """The network for one text with the weights as they are now; None where it has no such."""
        if any(weight.is_inference() for weight in self.model.parameters()):
            return None  # of weights made in inference mode nobody knows how often they changed
        found: ArticleText | None = self._memo.get("frozen", self.model, self.model.frozen)
        return found


class NeuralSession:
    """A neural drafter at work on one article, with a state for every token it has read.

    With a `lookup` that guesses what the network will say, the whole guess is read in one call, and
    the network goes on step by step only from where it would have said something else. The draft is
    the network's own, to the last token and number: the guess only saves calls. Source: Spector and
    Re 2023, "Staged Speculative Decoding", arXiv:2308.04623 (there each stage is judged by
    sampling; with the network's own uniforms at hand, drawing again and comparing is enough).

    Args:
        model: a `OneText`, or a `NeuralModel`.
        memory: what it keeps of the article.
        end_id: the token that ends a text; None where it is not known, and never barred.
        lookup: guesses drafts; worth it for networks that read several tokens in one call.
        draft_temperature: the drafter's own.

    Attributes:
        passes: how often the network was called so far.
    """

    def __init__(
        self,
        model: Any,
        memory: Memory,
        end_id: int | None = None,
        lookup: DrafterSession | None = None,
        *,
        draft_temperature: float | None = None,
    ) -> None:
        self._model: OneText = model if isinstance(model, OneText) else _Row(model)
        self._memory, self._lookup, self._temperature = memory, lookup, draft_temperature
        self._end, self._rules, self._length = end_id, Rules(end_id), LengthRule(end_id)
        self._read: list[int] = []
        self._states: list[State] = [self._model.begin(memory)]
        self._features: list[Any] = []
        self.passes = 0

    @torch.inference_mode()
    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        """Proposes k tokens, reading first whatever of `prefix` it has not read.

        With adaptive length fewer, where the next one would not pay; leading, as many as one call
        gives: those that were guessed right, and one more.
        """
        config = config.drafting(self._temperature)
        self._length.begin(config)
        if self._model.drafts:
            found = self._written(prefix, k, config, uniforms)
            if found is not None:
                return found
        text = list(prefix)
        tokens: list[int] = []
        kept: list[torch.Tensor] = []
        rows: list[torch.Tensor] = []
        numbers = uniforms.tolist()
        same = agreeing(text, self._read)
        guessing = config.of_length("fixed")  # a wrong guess costs little
        for position in range(k):
            if same < len(text):
                guess: list[int] = []
                if self._lookup is not None and position < k - 1:
                    left = k - 1 - position
                    guess = self._lookup.draft(text, left, guessing, uniforms).tokens
                self._go_back(same)
                self._feed([*text[same:], *guess])
            logits = self._model.logits(self._features[len(text) - 1])
            if falls_back(logits, config):
                break
            kept.append(logits)
            token = self._choose(logits, text, config, numbers[position], rows)
            tokens.append(token)
            if position == k - 1 or self._stops(token, kept[-1], config):
                break
            same = len(text)
            text.append(token)
            if same < len(self._read) and self._read[same] == token:  # it was guessed
                same += 1
            if config.draft_length == "lead" and same < len(text):
                break
        q = DenseProposal(torch.stack(rows)) if rows else OneHotProposal(tokens)
        return Draft(tokens, q, lambda position: kept[position].float().softmax(-1))

    def _choose(
        self,
        logits: torch.Tensor,
        text: Sequence[int],
        config: DecodingConfig,
        uniform: float,
        rows: list[torch.Tensor],
    ) -> int:
        """The token behind a text by the logits (V,); what it is drawn from goes to `rows`."""
        banned = self._rules.banned(text, config)
        if config.temperature == 0:
            return most_likely(logits[None], [banned])[0]
        rows.append(ruled_distribution(logits[None], [banned], config)[0])
        return drawn(rows[-1], uniform)

    def _written(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft | None:
        """The draft that `draft` would write, written on the device; None where that cannot be.

        Where the length is adaptive all of it is drafted, and what stands behind the end dropped.
        """
        if config.draft_length == "lead":
            k = 1
        same = min(agreeing(prefix, self._read), len(prefix) - 1)
        choice = Choice.of(config, self._end)
        state = self._states[same]
        written = self._model.draft(self._memory, state, prefix, k, choice, uniforms)
        if written is None:  # what was read on the device, no features of it are known here
            known = (at for at, kept in enumerate(self._features) if kept is None)
            self._go_back(next(known, len(self._read)))
            return None
        read = [*prefix[same:], *written.tokens[:-1]]
        self._go_back(same)
        self._read.extend(read)
        self._states.extend(range(same + 1, same + len(read) + 1))
        self._features.extend([None] * len(read))
        tokens, logits = written.tokens, written.logits
        self.passes += len(tokens)
        if config.draft_length == "confidence":
            unsure = (place for place, row in enumerate(logits) if falls_back(row, config))
            tokens = tokens[: next(unsure, len(tokens))]
        for place, sure in enumerate(written.sure[: max(0, len(tokens) - 1)]):
            if not self._length.goes_on(tokens[place], sure):
                tokens = tokens[: place + 1]
                break
        q = OneHotProposal(tokens) if written.q is None else DenseProposal(written.q[: len(tokens)])
        return Draft(tokens, q, lambda position: logits[position].float().softmax(-1))

    def _go_back(self, count: int) -> None:
        """Forgets all but the first `count` tokens."""
        del self._read[count:], self._states[count + 1 :], self._features[count:]

    def accept(self, tokens: Sequence[int]) -> None:
        """Only counts: the next draft goes back to where the texts agree."""
        self._length.accept(len(tokens))

    def _stops(self, token: int, logits: torch.Tensor, config: DecodingConfig) -> bool:
        """Whether the draft ends behind a token drawn from `logits` (V,)."""
        if config.draft_length != "adaptive":
            return False
        return not self._length.goes_on(token, confidence(logits, token))

    def _feed(self, tokens: list[int]) -> None:
        self.passes += 1
        features, states = self._model.read(self._memory, self._states[-1], tokens)
        self._read.extend(tokens)
        self._features.extend(features)
        self._states.extend(states)


_ASKED = 8
"""After so many steps on CUDA it is asked whether all texts have ended."""


@torch.inference_mode()
def roll_out(
    model: Any,
    source: torch.Tensor,
    *,
    start_id: int,
    end_id: int | Sequence[int],
    length: int,
    temperature: float,
    generator: torch.Generator,
    opening: Sequence[Sequence[int]] = (),
) -> list[list[int]]:
    """Lets a drafter's network write whole texts of its own about articles (B, S), padded with 0.

    The draws' generator is on the CPU, so that a resumed run draws the same; on CUDA its numbers
    are sent once, and tokens are drawn there. At temperature 0 the texts are greedy. `end_id` ends
    a text; of several any does. With `opening` each text begins with the ids given there.

    Returns:
        The ids written for each article, the end token included where it came.

    Raises:
        NotFiniteError: there are no numbers to draw from. Where nothing else waits for the device,
            on CUDA, it is asked at the end.
    """
    memory = model.remember(source)
    state = model.begin(memory)
    ids = torch.full((source.shape[0],), start_id, device=source.device)
    alive = torch.ones_like(ids, dtype=torch.bool)
    ends = torch.tensor(sorted(end_set(end_id)), device=source.device)
    columns, numbers = [], []
    given = pad_sequence(
        [torch.tensor(list(text), dtype=torch.long) for text in opening] or [ids[:0].cpu()],
        batch_first=True, padding_value=-1,
    ).to(source.device)  # fmt: skip
    apart = source.device.type == "cuda"
    uniforms = torch.empty(0)
    if apart and temperature > 0:
        shape = (length, len(source), 1)
        uniforms = torch.rand(shape, generator=generator, dtype=torch.float64).to(source.device)
    for place in range(length):
        features, state = model.step(memory, state, ids)
        logits = model.logits(features).float()
        if temperature == 0:
            ids = logits.argmax(-1)
            numbers.append(logits.gather(-1, ids[:, None])[:, 0])
        elif apart:
            chances = (logits / temperature).softmax(-1)
            numbers.append(chances[:, 0])  # where one of a row is no number, none is
            ids = _drawn_there(chances, uniforms[place])
        else:
            chances = (logits / temperature).softmax(-1).cpu()
            _require_numbers(chances)  # now: `multinomial` has no words for it
            ids = torch.multinomial(chances, 1, generator=generator)[:, 0].to(source.device)
        if place < given.shape[1]:
            ids = torch.where(given[:, place] < 0, ids, given[:, place])
        columns.append(torch.where(alive, ids, -1))
        alive &= (ids[:, None] != ends).all(-1)
        # On CUDA to ask is to wait for all that was launched: so it is asked now and then.
        if (not apart or place % _ASKED == _ASKED - 1) and not alive.any():
            break
    block = torch.stack(columns, 1).tolist()
    if numbers:
        _require_numbers(torch.stack(numbers))
    return [[token for token in row if token >= 0] for row in block]


def _require_numbers(found: torch.Tensor) -> None:
    if not bool(found.sum().isfinite()):
        raise NotFiniteError(
            "the drafter's logits are NaN or infinite: its weights are damaged. Copy or train it "
            "again, or take another one."
        )


def _drawn_there(chances: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Draws a token from each row (B, V) by its uniform number (B, 1); ids (B,). It never waits."""
    sums = chances.cumsum(-1, dtype=torch.float64)
    whole = sums[:, -1:].contiguous()
    # A product rounded up to the whole sum stays on the last token that added to it. Nothing is
    # found for NaN: an id from V on would end the process.
    last = torch.searchsorted(sums, whole).clamp_(max=chances.shape[-1] - 1)
    return torch.searchsorted(sums, uniforms * whole, right=True).minimum(last)[:, 0]
