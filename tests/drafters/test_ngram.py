import json

import numpy as np
import pytest
import torch

from fastllm.checkpoints import load_drafter
from fastllm.decoding import autoregress, speculate
from fastllm.decoding.proposals import DenseProposal, OneHotProposal
from fastllm.drafters.ngram import NgramDrafter
from fastllm.errors import CheckpointError, DataError, SettingsError
from fastllm.targets import Encoding
from fastllm.trace import DecodingConfig
from tests.fakes import END, START, FakeTarget, random_rule

SIZE = 12
UNIFORMS = torch.full((16,), 0.5, dtype=torch.float64)
ARTICLE = Encoding([5, 6, 7, END], torch.zeros(1, 4, 1), 0.0)


def texts(count=40, seed=0, size=SIZE):
    generator = np.random.default_rng(seed)
    return [
        [*np.minimum(generator.geometric(0.3, generator.integers(1, 12)) + 1, size - 1).tolist(), 1]
        for _ in range(count)
    ]


def fitted(order=3, sequences=None, size=SIZE, **settings):
    sequences = texts() if sequences is None else sequences
    return NgramDrafter.fit(sequences, order=order, vocabulary_size=size, **settings)


def same(one, other):
    """Whether two tables counted the same equally often."""
    return one.entries == other.entries and all(
        np.array_equal(one.rows(n), other.rows(n)) for n in range(1, one.order + 1)
    )


CASES = [
    {"order": 1},
    {"order": 2},
    {"order": 3},
    {"order": 4},
    {"order": 4, "named": 0},
    {"order": 3, "named": 3, "discount": 1.0},
    {"order": 3, "smoothing": "laplace"},
    {"order": 2, "smoothing": "laplace", "add": 0.01},
]


@pytest.mark.parametrize("settings", CASES)
def test_probabilities_sum_to_one(settings):
    drafter = fitted(**settings)
    generator = np.random.default_rng(1)
    for _ in range(200):
        row = drafter.row(generator.integers(0, SIZE, 3).tolist())
        assert row.sum() == pytest.approx(1, abs=1e-12)
        assert row.min() > 0


def test_laplace_by_hand():
    # Behind 2: 3 twice and 4 once. (c + 1) / (3 + 5)
    drafter = fitted(2, [[2, 3, 1], [2, 3, 1], [2, 4, 1]], 5, smoothing="laplace")
    assert drafter.row([2]) == pytest.approx([1 / 8, 1 / 8, 1 / 8, 3 / 8, 2 / 8])
    # With half a count added: (c + .5) / (3 + 2.5)
    half = fitted(2, [[2, 3, 1], [2, 3, 1], [2, 4, 1]], 5, smoothing="laplace", add=0.5)
    assert half.row([2]) == pytest.approx([1 / 11, 1 / 11, 1 / 11, 5 / 11, 3 / 11])


def test_interpolation_by_hand():
    # One text, 2 3 2 4 and the end. Order 1: of 5 tokens, 2 stands twice; 4 different ones.
    # D = .5: max(c - .5, 0) / 5 + .5 * 4 / 5 * 1 / 5 = 0, .18, .38, .18, .18 and .08 for each.
    one = [0.08, 0.1 + 0.08, 0.3 + 0.08, 0.1 + 0.08, 0.1 + 0.08]
    # Behind 2: 3 and 4, once each: .5 / 2, and .5 * 2 / 2 goes to order 1.
    two = [0.5 * p + (0.25 if token in (3, 4) else 0) for token, p in enumerate(one)]
    # Behind 3 2: 4, once: .5, and .5 goes to order 2.
    three = [0.5 * p + (0.5 if token == 4 else 0) for token, p in enumerate(two)]
    drafter = fitted(3, [[2, 3, 2, 4, 1]], 5, discount=0.5)
    assert drafter.row([3, 2]) == pytest.approx(three)
    # 4 2 was not seen, 2 was; 0 0 is the start of the text.
    assert drafter.row([4, 2]) == pytest.approx(two)
    assert drafter.row([0, 0]).argmax() == 2


def test_the_lowest_order_spreads_what_it_does_not_name():
    # Of one text's 5 tokens only the most frequent is named; the others share the rest.
    drafter = fitted(1, [[2, 3, 2, 4, 1]], 5, discount=0.5, named=1)
    assert drafter.row([]) == pytest.approx([0.155, 0.155, 0.38, 0.155, 0.155])


@pytest.mark.parametrize("smoothing", ["interpolated", "laplace"])
def test_an_unseen_context_backs_off(smoothing):
    long, short = (fitted(order, smoothing=smoothing) for order in (3, 2))
    unseen = [END, 2]  # nothing comes behind an end
    assert long.counts.levels[2].behind(long.counts.packed(unseen)[2]) is None
    assert long.row(unseen) == pytest.approx(short.row([2]))
    # Behind the end itself nothing was seen at all: order 1.
    assert long.row([2, END]) == pytest.approx(fitted(1, smoothing=smoothing).row([]))


def test_the_start_and_the_end_of_a_text_are_counted():
    drafter = fitted(4, [[5, 6, 1], [5, 7, 1]])
    session = drafter.begin(ARTICLE)
    draft = session.draft([START], 8, DecodingConfig(), UNIFORMS)
    assert draft.tokens == [5, 6, END]  # 6 before 7: the smaller id; nothing behind the end
    assert isinstance(draft.q, OneHotProposal)


def test_a_drafter_that_counted_nothing_is_uniform():
    for smoothing in ("interpolated", "laplace"):
        drafter = fitted(3, [], smoothing=smoothing)
        assert drafter.row([0, 0]) == pytest.approx([1 / SIZE] * SIZE)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_resuming_equals_one_fit(order):
    both = texts(60)
    resumed = fitted(order, both[:25]).resume(both[25:])
    assert same(resumed.counts, fitted(order, both).counts)
    assert not same(resumed.counts, fitted(order, both[:25]).counts)
    assert same(fitted(order, both).resume([]).counts, resumed.counts)


def test_counts_against_a_plain_count():
    sequences = texts(20)
    counts = fitted(3, sequences).counts
    seen = {}
    for text in sequences:
        whole = [0, 0, *text]
        for end in range(3, len(whole) + 1):
            key = tuple(whole[end - 3 : end])
            seen[key] = seen.get(key, 0) + 1
    assert {tuple(row[:-1]): row[-1] for row in counts.rows(3).tolist()} == seen


@pytest.mark.parametrize("size", [12, 70_000, 1 << 21])
def test_large_vocabularies_fit_in_the_packed_contexts(size):
    sequences = [[size - 1, size - 2, size - 3, size - 4, 1]] * 2
    drafter = fitted(4, sequences, size)
    assert drafter.row([size - 1, size - 2, size - 3]).argmax() == size - 4


@pytest.mark.parametrize("settings", CASES)
def test_files_load_equal(tmp_path, settings):
    drafter = fitted(**settings, name="n-gram before", vocabulary="f1")
    drafter.save(tmp_path / "folder")
    drafter.save_text(tmp_path / "counts.txt")
    binary = load_drafter(tmp_path / "folder")
    text = NgramDrafter.load_text(tmp_path / "counts.txt")
    for loaded in (binary, text):
        assert loaded.config() == drafter.config()
        assert same(loaded.counts, drafter.counts)
        assert np.array_equal(loaded.row([0, 2, 3]), drafter.row([0, 2, 3]))
    assert json.loads((tmp_path / "folder" / "config.json").read_text())["family"] == "ngram"
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == [
        "config.json",
        "counts.npz",
    ]


def test_an_empty_table_loads_equal(tmp_path):
    drafter = fitted(3, [])
    drafter.save(tmp_path / "folder")
    drafter.save_text(tmp_path / "counts.txt")
    assert same(NgramDrafter.load(tmp_path / "folder").counts, drafter.counts)
    assert same(NgramDrafter.load_text(tmp_path / "counts.txt").counts, drafter.counts)


def test_a_table_that_counted_articles_is_refused(tmp_path):
    fitted(2).save(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "online": 0, "article": 0}))  # as earlier versions wrote
    assert same(load_drafter(tmp_path).counts, fitted(2).counts)
    path.write_text(json.dumps({**config, "article": 8}))
    with pytest.raises(CheckpointError, match="'article', which is not supported"):
        load_drafter(tmp_path)


def test_every_cut_off_text_file_is_refused(tmp_path):
    path = tmp_path / "counts.txt"
    fitted(2, [[2, 3, 1], [3, 2, 1]]).save_text(path)
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 12  # settings; a heading and 3 unigrams; a heading and 6 bigrams
    for kept in range(len(lines)):
        path.write_text("".join(lines[:kept]))
        with pytest.raises(CheckpointError, match=r"counts\.txt is not a whole"):
            NgramDrafter.load_text(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"version": 1', '"version": 9'),
        ('"order": 2', '"order": 3'),
        ('"order": 2', '"order": 7'),
        ('"order": 2', '"order": "2"'),
        ('"vocabulary_size": 12', '"vocabulary_size": 3'),
        ('"smoothing": "interpolated"', '"smoothing": "magic"'),
        ('"smoothing"', '"smothing"'),
        ("[2] 6", "[2] 5"),
        ("[2] 6", "[2] x"),
        ("\n2 3 1\n", "\n2 3\n"),
        ("\n2 3 1\n", "\n2 three 1\n"),
        ("\n2 3 1\n", "\n2 -3 1\n"),
        ("\n2 3 1\n", "\n2 3 0\n"),
        ("{", "["),
    ],
)
def test_a_damaged_text_file_is_refused(tmp_path, old, new):
    path = tmp_path / "counts.txt"
    fitted(2, [[2, 3, 1], [3, 2, 1]]).save_text(path)
    whole = path.read_text()
    assert old in whole
    path.write_text(whole.replace(old, new, 1))
    with pytest.raises(CheckpointError, match="not a whole n-gram text file"):
        NgramDrafter.load_text(path)


def test_a_damaged_folder_is_refused(tmp_path):
    drafter = fitted(3)
    drafter.save(tmp_path)
    table, config = tmp_path / "counts.npz", tmp_path / "config.json"
    bytes_of_it, settings = table.read_bytes(), json.loads(config.read_text())
    for kept in (0, 10, len(bytes_of_it) // 2, len(bytes_of_it) - 5):
        table.write_bytes(bytes_of_it[:kept])
        with pytest.raises(CheckpointError, match="not a whole n-gram drafter"):
            NgramDrafter.load(tmp_path)
    table.write_bytes(bytes_of_it)
    for change in ({"order": 4}, {"vocabulary_size": 5}, {"family": "lstm"}, {"colour": "red"}):
        config.write_text(json.dumps({**settings, **change}))
        with pytest.raises(CheckpointError):
            NgramDrafter.load(tmp_path)
    config.write_text(json.dumps(settings))
    arrays = dict(np.load(table))
    for name, damage in (
        ("counts_3", arrays["counts_3"][:-1]),
        ("tokens_2", arrays["tokens_2"][::-1]),
        ("contexts_2", np.zeros_like(arrays["contexts_2"])),
        ("counts_1", np.zeros_like(arrays["counts_1"])),
    ):
        np.savez_compressed(table, **{**arrays, name: damage})
        with pytest.raises(CheckpointError, match="order"):
            NgramDrafter.load(tmp_path)
    table.unlink()
    with pytest.raises(CheckpointError, match=r"counts\.npz"):
        NgramDrafter.load(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"order": 0},
        {"order": 5},
        {"order": True},
        {"order": 2, "smoothing": "magic"},
        {"order": 2, "add": 0},
        {"order": 2, "add": float("nan")},
        {"order": 2, "discount": 0},
        {"order": 2, "discount": 1.1},
        {"order": 2, "named": -1},
        {"order": 2, "size": 0},
        {"order": 2, "size": 1 << 22},
        {"order": 2, "start_id": 12},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingsError, match="="):
        fitted(**{"sequences": [], **settings})


@pytest.mark.parametrize("text", [[2, 12], [-1]])
def test_ids_outside_the_vocabulary_are_refused(text):
    with pytest.raises(DataError, match="vocabulary of 12"):
        fitted(2, [text])


@pytest.mark.parametrize("smoothing", ["interpolated", "laplace"])
@pytest.mark.parametrize("warp", [{}, {"temperature": 0.6, "top_p": 0.9}, {"top_k": 4}], ids=str)
def test_q_is_the_distribution_the_tokens_come_from(smoothing, warp):
    draws, k = 2000, 3
    config = DecodingConfig(**{"temperature": 1.0, **warp})
    # No end token, so that each draft has all its positions.
    session = fitted(3, [text[:-1] for text in texts()], smoothing=smoothing, end_id=11).begin(
        ARTICLE
    )
    generator = torch.Generator().manual_seed(11)
    seen = {}
    for _ in range(draws):
        uniforms = torch.rand(k, generator=generator, dtype=torch.float64)
        draft = session.draft([START, 2], k, config, uniforms)
        assert isinstance(draft.q, DenseProposal)
        for position, token in enumerate(draft.tokens):
            key = tuple(draft.tokens[:position])
            counts, _ = seen.setdefault(key, (np.zeros(SIZE), draft.q.row(position, SIZE).numpy()))
            counts[token] += 1
    judged = 0
    for counts, q in seen.values():
        expected = q * counts.sum()
        assert counts[q == 0].sum() == 0
        large = expected >= 5  # chi-square wants cells of some size: the others count as one
        observed = np.append(counts[large], counts[~large].sum())
        wanted = np.append(expected[large], expected[~large].sum())
        observed, wanted = observed[wanted > 0], wanted[wanted > 0]
        freedom = len(wanted) - 1
        if freedom < 1 or wanted.min() < 1:
            continue
        judged += 1
        statistic = ((observed - wanted) ** 2 / wanted).sum()
        # Wilson and Hilferty: 4.3 standard deviations, one false alarm in 100,000.
        spread = 2 / (9 * freedom)
        assert statistic < freedom * (1 - spread + 4.3 * spread**0.5) ** 3
    assert judged >= 5


def test_the_unwarped_row_is_the_table_s_own():
    drafter = fitted(3)
    config = DecodingConfig(temperature=0.5, top_k=2)
    draft = drafter.begin(ARTICLE).draft([START], 2, config, UNIFORMS)
    torch.testing.assert_close(draft.unwarped(0), torch.from_numpy(drafter.row([0, 0])).float())
    second = torch.from_numpy(drafter.row([0, draft.tokens[0]])).float()
    torch.testing.assert_close(draft.unwarped(1), second)


def test_a_session_that_went_back_drafts_like_a_fresh_one():
    drafter = fitted(3)
    config = DecodingConfig(temperature=1.0)
    session = drafter.begin(ARTICLE)
    for prefix in ([0, 2, 3], [0, 2, 3, 4, 2], [0, 2, 5], [0]):
        kept = session.draft(prefix, 4, config, UNIFORMS)
        fresh = drafter.begin(ARTICLE).draft(prefix, 4, config, UNIFORMS)
        assert kept.tokens == fresh.tokens
        assert torch.equal(kept.q.rows, fresh.q.rows)


@pytest.mark.parametrize("settings", [{"order": 3}, {"order": 2, "smoothing": "laplace"}])
def test_greedy_text_stays_the_same(settings):
    drafter = fitted(**settings)
    target = FakeTarget(random_rule(SIZE, 4, end_bias=-1.0))
    article = target.encode([5, 6, 7, END])
    ends = {"start_id": START, "end_id": END}
    for gamma in (1, 4, 8):
        config = DecodingConfig(gamma=gamma, max_new_tokens=30)
        alone = list(autoregress(target.begin(article), config, **ends))
        helped = list(speculate(target.begin(article), drafter.begin(article), config, **ends))
        assert [t for r in helped for t in r.tokens] == [t for r in alone for t in r.tokens]
