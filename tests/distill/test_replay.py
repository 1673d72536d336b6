"""Draft-OPD: which drafts are refused, what is replayed of them, and what is learned from it."""

import json
from pathlib import Path

import pytest
import torch

from fastllm.data.tokens import (
    IGNORED,
    TokenPairs,
    batch_indices,
    padded,
    prefixes,
    write_pairs,
)
from fastllm.distill.losses import cross_entropy, forward_kl, reverse_kl
from fastllm.distill.pseudo import write_pseudo
from fastllm.distill.replay import DECAY, refusals, replays
from fastllm.distill.teacher import Teacher
from fastllm.distill.train import DrafterRecipe, train_drafter
from fastllm.distill.validation import GAMMA
from fastllm.drafters.lstm import LstmDrafter
from fastllm.targets import Encoding
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig


def _drafter(target: HubTarget) -> LstmDrafter:
    size = int(target.model.config.vocab_size)
    return LstmDrafter.fresh(size, width=48, hidden=32, mixing=32, places=32)


@pytest.fixture
def dataset(tmp_path: Path) -> TokenPairs:
    """Articles of random ids, each text a piece of its article with some words changed."""
    generator = torch.Generator().manual_seed(5)
    rows = []
    for index in range(24):
        source = torch.randint(100, 300, (30,), generator=generator).tolist()
        text = [token if place % 5 else 50 + place for place, token in enumerate(source[4:16])]
        rows.append((f"a{index}", [*source, 1], [*text, 1]))
    write_pairs(tmp_path / "data", rows, {})
    return TokenPairs(tmp_path / "data")


@pytest.mark.parametrize(
    ("agrees", "expected"),
    [
        ([1, 1, 1, 1], []),
        ([0, 0, 0, 0], [range(0, 3), range(1, 4), range(2, 4), range(3, 4)]),
        ([1, 1, 1, 0, 1, 0], [range(5, 6)]),  # at 3 stands the target's own token
        ([1, 0, 1, 1, 1, 1], [range(1, 3)]),
        ([], []),
    ],
)
def test_a_draft_is_refused_from_its_first_wrong_token_on(
    agrees: list[int], expected: list[range]
) -> None:
    assert refusals([7 if right else 8 for right in agrees], [7] * len(agrees), 3) == expected


def test_what_is_replayed_is_what_decoding_drafts_and_the_target_refuses(
    tiny_target: HubTarget, dataset: TokenPairs
) -> None:
    drafter = _drafter(tiny_target)
    indices = list(range(len(dataset)))
    texts = [dataset.target(index) for index in indices]
    source = padded([dataset.source(index) for index in indices], 0)
    with torch.no_grad():
        choices = drafter.model(source, prefixes(texts, 0)).argmax(-1)
    refused: dict[int, list[tuple[int, list[int]]]] = {}
    for index, text in enumerate(texts):
        session = drafter.begin(Encoding(dataset.source(index), torch.zeros(1, 1, 1), 0.0))
        place = 0
        while place < len(text):
            count = min(GAMMA, len(text) - place)
            draft = session.draft(
                [0, *text[:place]], count, DecodingConfig(temperature=0), torch.rand(count)
            ).tokens
            kept = 0
            while kept < count and draft[kept] == text[place + kept]:
                kept += 1
            if kept < count:
                end = next((at + 1 for at, token in enumerate(draft) if token == 1), count)
                row = [*text[:place], *draft[:end]]
                refused.setdefault(index, []).append((place + kept, row))
            place += kept + 1
    found = [
        replays(
            drafter.model, source, texts, choices, start_id=0, end_id=1,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (1, 1, 2)
    ]  # fmt: skip
    assert found[0].texts == found[1].texts, "the generator alone decides"
    assert found[0].texts != found[2].texts
    for again in found:
        assert again.rows == sorted(refused)
        for row, text, weights in zip(again.rows, again.texts, again.weights.tolist(), strict=True):
            (place,) = [place for place, draft in refused[row] if draft == text]
            expected = [0.0] * place + [DECAY**step for step in range(len(text) - place)]
            assert weights[: len(text)] == pytest.approx(expected)
            assert not any(weights[len(text) :])


def test_where_nothing_is_refused_nothing_counts(tiny_target: HubTarget) -> None:
    texts = [[7, 8, 1], [9, 1]]
    found = replays(
        _drafter(tiny_target).model, torch.tensor([[5, 1], [6, 1]]), texts, padded(texts, 0),
        start_id=0, end_id=1, generator=torch.Generator(),
    )  # fmt: skip
    assert (found.rows, found.texts) == ([0], [[7, 8, 1]])
    assert not found.weights.any()


@pytest.mark.parametrize("loss", ["fkl", "ce"])
def test_training_learns_from_its_refused_drafts(
    loss: str, tiny_target: HubTarget, dataset: TokenPairs, tmp_path: Path
) -> None:
    """All texts in each batch: the first update's loss is computed again by hand."""
    written = write_pseudo(
        tiny_target, dataset, tmp_path / "pseudo", length=12, say=lambda line: None
    )
    recipe = DrafterRecipe(
        method="opd", loss=loss, updates=40, batch=24, learning_rate=3e-3, warmup=5, cooldown=10,
        length=12, seed=3,
    )  # fmt: skip
    model = _drafter(tiny_target).model
    run = tmp_path / "run"
    train_drafter(
        model, recipe, run, dataset=dataset, written=written, target=tiny_target, log_every=1,
        say=lambda line: None,
    )  # fmt: skip
    first, *_, last = map(json.loads, (run / "training.jsonl").read_text().splitlines())
    assert first["loss"] > first["replay"] > last["replay"]
    assert last["alpha"] > first["alpha"]

    # The first loss once more, by hand.
    batch = batch_indices(dataset, 24, 0, recipe.seed)
    texts = [written.target(index)[:12] for index in batch]
    source = padded([dataset.source(index) for index in batch], 0)
    fresh, teacher = _drafter(tiny_target).model, Teacher(tiny_target, dataset)

    def logits_of(rows: list[int], some: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        prefix = prefixes(some, 0)
        with torch.no_grad():
            return teacher.logits([batch[row] for row in rows], prefix), fresh(source[rows], prefix)

    p, q = logits_of(list(range(24)), texts)
    labels = padded(texts, IGNORED)
    values = cross_entropy(q, labels) if loss == "ce" else forward_kl(p, q)
    again = replays(
        fresh, source, texts, q.argmax(-1), start_id=0, end_id=1,
        generator=torch.Generator().manual_seed(recipe.seed * 1_000_003),
    )  # fmt: skip
    p, q = logits_of(again.rows, again.texts)
    replay = (reverse_kl(p, q) * again.weights).sum() / again.weights.sum()
    assert first["replay"] == pytest.approx(float(replay), rel=1e-4)
    whole = float(values[labels != IGNORED].mean() + replay)
    assert first["loss"] == pytest.approx(whole, rel=1e-4)
    count = sum(map(len, texts)) + sum(map(len, again.texts))
    assert first["tokens"] == count, "tokens that the target scored"
