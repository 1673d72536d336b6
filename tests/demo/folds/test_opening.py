"""What the page opens with."""

import json

from fastllm import metrics, paths
from fastllm.demo.articles import samples
from fastllm.demo.folds.race import race
from fastllm.trace import Trace


def test_the_page_opens_with_a_typical_sample() -> None:
    calls: dict[str, tuple[int, int]] = {}
    for title in samples():
        tree = json.loads((paths.RECORDED / race.recorded_name(title)).read_text("utf-8"))
        found = dict(zip(tree["lanes"], map(Trace.from_json, tree["traces"]), strict=True))
        before, after = found["lstm-before"], found["lstm-after"]
        calls[title] = metrics.target_calls(before), metrics.target_calls(after)
    before, after = (sum(counts) for counts in zip(*calls.values(), strict=True))
    own_before, own_after = calls[race.TYPICAL]
    assert abs(own_after / own_before - after / before) < 0.05
    recorded = race.recorded_races(paths.RECORDED)
    assert race.opening(recorded, samples()) == (race.TYPICAL, recorded[race.TYPICAL])
    # Where it is missing, what is there opens the page.
    del recorded[race.TYPICAL]
    assert race.opening(recorded, {"Mine": "text"}) == ("Mine", recorded["Autumn storm"])
    assert race.opening({}, {}) == (race.words.OWN_ARTICLE, "")
