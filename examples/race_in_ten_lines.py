"""The target alone against two drafters: one text, fewer calls.

python -m examples.race_in_ten_lines
"""

from pathlib import Path

import fastllm
from fastllm.decoding import Race
from fastllm.metrics import target_calls

article = Path("assets/articles/cup-final-keeper.txt").read_text(encoding="utf-8")
drafters = [None, fastllm.load_drafter("lookup"), fastllm.load_drafter("shared-after")]
race = Race(fastllm.load_target(), drafters, article, fastllm.DecodingConfig(gamma=5))
for step in race:  # one call of the target in one lane
    print(step.lane, step.round.tokens)
for trace in race.traces():
    print(f"{trace.drafter or 'target alone':<14} {target_calls(trace):>3} calls  {trace.text}")
