import pytest
import torch

from fastllm.data.tokens import TokenPairs, write_pairs
from fastllm.decoding.race import Race
from fastllm.distill.pseudo import write_pseudo
from fastllm.distill.validation import Validation, greedy_calls
from fastllm.drafters.lstm import LstmDrafter
from fastllm.errors import DataError, VocabularyError
from fastllm.metrics import target_calls
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig

LENGTH = 20


@pytest.mark.parametrize(
    ("agrees", "gamma", "calls"),
    [
        ([False, False, False], 3, 3),
        ([True, True, True], 3, 1),
        ([True, True, True, True], 3, 1),  # the target's own token comes on top
        ([True, True, True, True, True], 3, 2),
        ([True, False, True, True], 1, 2),
        ([], 4, 0),
    ],
)
def test_calls_of_a_greedy_decoding(agrees: list[bool], gamma: int, calls: int) -> None:
    assert greedy_calls(agrees, gamma) == calls


def test_tau_is_that_of_a_real_decoding_under_the_targets_own_rules(
    tiny_target: HubTarget, story: str, tmp_path: object
) -> None:
    texts = [story, story[story.index("Fire") :], story[story.index("The mill") :]]
    sources = [tiny_target.vocabulary.encode(text, 96).ids for text in texts]
    rows = [(str(index), ids, [1]) for index, ids in enumerate(sources)]
    write_pairs(f"{tmp_path}/articles", rows, {})
    own = tiny_target.model.generation_config
    own.no_repeat_ngram_size = 2
    try:
        written = write_pseudo(
            tiny_target, TokenPairs(f"{tmp_path}/articles"), f"{tmp_path}/pseudo", length=LENGTH,
            say=lambda line: None,
        )  # fmt: skip
        drafter = LstmDrafter.fresh(
            tiny_target.model.config.vocab_size,
            width=48, hidden=32, mixing=32, vocabulary=tiny_target.vocabulary.fingerprint,
        )  # fmt: skip
        found = Validation(tiny_target, written, gamma=3)(drafter.model)
        tokens = calls = 0
        for text in texts:
            config = DecodingConfig(gamma=3, max_new_tokens=LENGTH)
            race = Race(tiny_target, [None, drafter], text, config)
            for _ in race:
                pass
            alone, helped = race.traces()
            assert list(alone.tokens) in [written.target(index) for index in range(3)]
            tokens += len(helped.tokens)
            calls += target_calls(helped)
    finally:
        own.no_repeat_ngram_size = None
    assert found["validation_tau"] == pytest.approx(tokens / calls)
    assert 0 < found["validation_alpha"] < 1


def test_a_perfect_drafter_has_everything_accepted(
    tiny_target: HubTarget, story: str, tmp_path: object
) -> None:
    ids = tiny_target.vocabulary.encode(story, 96).ids
    write_pairs(f"{tmp_path}/articles", [("a", ids, [1])], {})
    written = write_pseudo(
        tiny_target, TokenPairs(f"{tmp_path}/articles"), f"{tmp_path}/pseudo", length=12,
        say=lambda line: None,
    )  # fmt: skip

    class Same(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = tiny_target.model

        def forward(self, source: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(input_ids=source, decoder_input_ids=prefix).logits
            return logits

    found = Validation(tiny_target, written, gamma=5)(Same())
    assert found["validation_alpha_greedy"] == 1
    assert found["validation_tau"] == 12 / 2
    # The teacher's encodings are rounded to bfloat16.
    assert found["validation_alpha"] == pytest.approx(1, abs=0.02)


def test_texts_that_cannot_validate_are_refused(tiny_target: HubTarget, tmp_path: object) -> None:
    fingerprint = tiny_target.vocabulary.fingerprint
    cases = {
        "drawn": ({"vocabulary": fingerprint, "temperature": 1.0}, DataError),
        "foreign": ({"vocabulary": "other"}, VocabularyError),
    }
    for name, (meta, error) in cases.items():
        write_pairs(f"{tmp_path}/{name}", [("a", [5, 1], [6, 1])], meta)
        with pytest.raises(error):
            Validation(tiny_target, TokenPairs(f"{tmp_path}/{name}"))
