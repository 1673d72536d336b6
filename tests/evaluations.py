"""An evaluation made by hand: two articles, numbers that can be followed with a pencil."""

from fastllm.evaluation.measure import (
    Agreement,
    ArticleNumbers,
    Evaluation,
    LaneNumbers,
    TextNumbers,
)
from fastllm.trace import DecodingConfig


def lane(
    calls: int,
    tokens: int = 12,
    *,
    drafted: int = 0,
    accepted: int = 0,
    positions: tuple[tuple[int, int], ...] = (),
    seconds: float = 1.0,
    same_text: bool = True,
) -> LaneNumbers:
    """A lane whose rounds take `seconds`, a tenth of them drafting; encoding 0.5 s more."""
    drafting = 0.1 * seconds if drafted else 0.0
    return LaneNumbers(
        calls=calls,
        tokens=tokens,
        drafted=drafted,
        accepted=accepted,
        positions=positions,
        decode_seconds=seconds,
        seconds=seconds + 0.5,
        draft_seconds=drafting,
        verify_seconds=seconds - drafting,
        same_text=same_text,
    )


def hand_made(*, asked: int = 2, other_text: bool = False) -> Evaluation:
    """Greedy and sampled, gamma 3 and 5, lookup and one pair; x-after halves x-before's calls."""

    def article(name: str, tokens: int, longer: int) -> ArticleNumbers:
        lanes = {
            gamma: {
                "x-after": lane(
                    3,
                    tokens,
                    drafted=6,
                    accepted=4,
                    positions=((4, 3), (3, 1), (1, 0)),
                    seconds=0.5,
                    same_text=not (other_text and gamma == 5),
                ),
                "lookup": lane(4, tokens, drafted=4, accepted=2, positions=((4, 2),), seconds=0.6),
                "x-before": lane(
                    6, tokens + longer, drafted=10, accepted=2, positions=((5, 1), (1, 1))
                ),
            }
            for gamma in (3, 5)
        }
        rouge = {kind: 0.5 for kind in ("rouge1", "rouge2", "rougeL")}
        return ArticleNumbers(
            id=name,
            cut=False,
            text=TextNumbers(
                tokens, "abc", "end_of_text", False, 0.0, 0.25, {"target": rouge}, 0.5
            ),
            alone=lane(tokens, tokens, seconds=2.0),
            agreements={
                "x-after": Agreement(0.75, 1.0, (True, True, True, False), 1.25),
                "lookup": Agreement(0.5, 0.5, (True, True, False, False)),
                "x-before": Agreement(0.25, 1.0, (True, False, False, False), 2.5),
            },
            lanes=lanes,
        )

    return Evaluation(
        target="t5-hand",
        config=DecodingConfig(no_repeat_ngram=3, min_new_tokens=0),
        temperatures=(0.0, 1.0),
        gammas=(3, 5),
        drafters=("x-after", "lookup", "x-before"),
        hardware="an abacus",
        versions={"python": "3", "torch": "2"},
        asked=asked,
        rows={
            0.0: (article("a", 12, 0), article("b", 18, 0)),
            1.0: (article("a", 12, 6), article("b", 18, 12)),
        },
    )
