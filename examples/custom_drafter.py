"""A drafter of your own: it says what followed the last word in the article.

    python -m examples.custom_drafter

A drafter has `name`, `vocabulary` and `begin`; what `begin` returns has `draft` and `accept`.
Whatever it guesses, the text stays the target's.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

import fastllm
from fastllm.decoding.proposals import Draft, OneHotProposal
from fastllm.drafters import Drafter
from fastllm.metrics import target_calls
from fastllm.targets import Encoding


class NextInArticle(Drafter):
    """Drafts the tokens that follow the last written token where it first stands in the article."""

    name = "next in article"
    vocabulary = ""  # fits any: it copies ids

    def begin(self, encoding: Encoding) -> "NextInArticle":
        """Prepares for an article; here its token ids are all that is needed."""
        self.article = list(encoding.source_ids[:-1])  # without the end token
        return self

    def draft(
        self,
        prefix: Sequence[int],
        k: int,
        config: fastllm.DecodingConfig,
        uniforms: torch.Tensor,
    ) -> Draft:
        """At most k tokens; none is allowed, too. All chance is on them, so q is one-hot."""
        last = prefix[-1]
        at = self.article.index(last) + 1 if last in self.article else len(self.article)
        tokens = self.article[at : at + k]
        return Draft(tokens, OneHotProposal(tokens))

    def accept(self, tokens: Sequence[int]) -> None:
        """Told what the round added; a drafter with a state would move it on."""


article = Path("assets/articles/cup-final-keeper.txt").read_text(encoding="utf-8")
alone = fastllm.generate(article, drafter=None)
helped = fastllm.generate(article, drafter=NextInArticle())
print(helped.text)
print(f"{target_calls(alone)} calls of the target alone, {target_calls(helped)} with the drafter")
assert helped.text == alone.text
