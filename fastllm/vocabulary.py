"""Text to ids and back: encoding with a notice of what was cut, and a fingerprint."""

import hashlib
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from tokenizers.decoders import ByteLevel, WordPiece
from transformers import AutoTokenizer

from fastllm.errors import CheckpointError, DataError

_FEW = 8
"""Fewer pieces than these write nothing."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of an article, the end token included, and the character at which it was cut."""

    ids: list[int]
    cut_at: int | None


class Vocabulary:
    """A tokenizer of transformers as FastLLM uses it.

    From now on it cuts at the right, whatever side it was saved with: the prefix and the opening of
    an article are what counts. And it does not tidy blanks up: that changes words that were already
    shown while a text was written.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        if tokenizer is not None:
            tokenizer.truncation_side = "right"
            tokenizer.clean_up_tokenization_spaces = False
            rust: Any = getattr(tokenizer, "backend_tokenizer", None)
            if isinstance(getattr(rust, "decoder", None), WordPiece):
                rust.decoder.cleanup = False

    @classmethod
    def load(cls, name_or_folder: str | Path) -> "Vocabulary":
        """Loads the tokenizer of a checkpoint folder or of a model on the Hub.

        Raises:
            CheckpointError: nothing usable there.
        """
        try:
            return cls(AutoTokenizer.from_pretrained(str(name_or_folder)))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"no tokenizer in {name_or_folder}: {error}") from error

    def save(self, folder: str | Path) -> None:
        """Writes the tokenizer as `AutoTokenizer` reads it.

        Raises:
            OSError: the disk is full, or the like.
        """
        if self.tokenizer.is_fast:  # the limit of the last article is no setting of it
            self.tokenizer.backend_tokenizer.no_truncation()
        try:
            self.tokenizer.save_pretrained(folder)
        except Exception as error:
            if type(error) is not Exception:  # the library tokenizers has no kind of its own
                raise
            raise OSError(f"{folder}: {error}") from error

    @cached_property
    def fingerprint(self) -> str:
        """Tells vocabularies apart by their pieces, not by their size (sizes differ by padding)."""
        digest = hashlib.sha256()
        for piece, index in sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1]):
            digest.update(f"{index}\t{piece}\n".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]

    @cached_property
    def full_stop(self) -> int:
        """The token that ends a sentence, as it stands behind a word."""
        return int(self.tokenizer("end.", add_special_tokens=False)["input_ids"][-1])

    @property
    def empty(self) -> bool:
        """Whether it has special tokens and next to nothing else.

        So is what transformers makes up for a T5 where there is no tokenizer.
        """
        special = set(self.tokenizer.all_special_ids)
        return len(self.tokenizer) - len(special) < _FEW

    def encode(self, text: str, limit: int, prefix: str = "") -> Encoded:
        """Encodes an article, cut to `limit` ids, the end token included.

        `prefix` is put before the article; it is not counted in `cut_at`.

        Raises:
            DataError: it, or the prefix, holds half of a surrogate pair, which is no character.
        """
        whole = prefix + text
        try:
            whole.encode()
        except UnicodeEncodeError as error:
            at = error.start - len(prefix)
            place = f"character {at} of the article" if at >= 0 else "a character of the prefix"
            raise DataError(
                f"{place} is half of a surrogate pair (\\ud800 to "
                "\\udfff), which is no character: decode the file anew, or leave it out."
            ) from error
        offsets = bool(self.tokenizer.is_fast)
        encoded = self.tokenizer(
            whole, truncation=True, max_length=limit, return_offsets_mapping=offsets
        )
        ids = list(encoded["input_ids"])
        if len(ids) < limit:
            return Encoded(ids, None)
        if offsets:
            reached = max((end for _, end in encoded["offset_mapping"]), default=0)
        else:
            reached = self._fits(whole, limit)
        reached = max(reached - len(prefix), 0)
        return Encoded(ids, reached if text[reached:].strip() else None)

    def _fits(self, text: str, limit: int) -> int:
        """How many characters of a text fit into `limit` ids, for tokenizers without offsets.

        What they write for the beginning of a text is taken as no longer than for all of it.
        """
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            fits = len(self.tokenizer(text[:middle])["input_ids"]) <= limit
            low, high = (middle, high) if fits else (low, middle - 1)
        return low

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text that each token adds; joined they are the decoded text.

        A character that spans several byte tokens belongs to the last of them.
        """
        detokenizer = Detokenizer(self)
        text = self.decode(ids)
        ends = [0, *accumulate(len(detokenizer.push(token)) for token in ids)]
        # A text that ends inside a character is not what its beginning promised: the last piece
        # takes what is left over.
        ends = [min(end, len(text)) for end in ends[:-1]] + [len(text)]
        return [text[start:end] for start, end in pairwise(ends)]

    def names(self, ids: Iterable[int]) -> dict[int, str]:
        """A readable form of single tokens: a leading blank where a word begins."""
        return {token: self._name(token) for token in set(ids)}

    def _name(self, token: int) -> str:
        piece = str(self.tokenizer.convert_ids_to_tokens(token))
        rust: Any = getattr(self.tokenizer, "backend_tokenizer", None)
        if isinstance(getattr(rust, "decoder", None), ByteLevel):  # BART's: a letter a byte
            spelled = str(rust.decoder.decode([piece]))
            return piece if "\N{REPLACEMENT CHARACTER}" in spelled else spelled
        return piece.replace("▁", " ")

    @cached_property
    def passed_over(self) -> frozenset[int]:
        """The ids that decoding leaves out as if they were not there."""
        if not self.tokenizer.is_fast:  # those in Python part the text at them
            return frozenset()
        added = self.tokenizer.added_tokens_decoder
        return frozenset(index for index, token in added.items() if token.special)


class Detokenizer:
    """Ids to text one token at a time, without decoding everything again at each.

    Example: `push` returns "" while a character is incomplete, then the whole character.
    """

    _WINDOW = 6
    """Ids of context: enough for the longest byte sequence and the blank before a word."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._ids: list[int] = []
        self._shown_to = 0
        self._whole = deque([0])  # places where no character is left open; the first is shown from

    def push(self, token: int) -> str:
        """The text that `token` adds to what was shown."""
        if token in self._vocabulary.passed_over:  # many in a row would be all of the context
            return ""
        self._ids.append(token)
        before = self._vocabulary.decode(self._ids[self._whole[0] : self._shown_to])
        now = self._vocabulary.decode(self._ids[self._whole[0] :])
        if now.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        self._shown_to = len(self._ids)
        self._whole.append(self._shown_to)
        while self._whole[1] <= self._shown_to - self._WINDOW:
            self._whole.popleft()
        return now[len(before) :]
