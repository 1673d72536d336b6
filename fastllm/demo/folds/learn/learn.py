"""Train one, race again: a copy of the undistilled drafter learns in view, then races.

It learns from the visitor's article and some of the samples; the other samples are held out. How it
learns is `fastllm.distill.live_training`. What ships is only copied; the copy goes with the run.

The rows of the training, one JSON object per line, only ever appended to; after them come those of
the race (`fastllm.demo.rows`):

    {"row": "lesson", "run", "title", "article", "held_out", "texts", "updates"}
    {"row": "writing", "done"}
    {"row": "written", "others"}
    {"row": "shipped", "title", "own": [alpha, tau], "held_out": [alpha, tau]}
    {"row": "moment", "seconds", "updates", "tokens", "loss", "own": [alpha, tau], "held_out": ...}
    {"row": "taught", "updates", "said": [sentence, ...], "race"}

"article" is the title of a sample, or empty; "held_out" are the titles of those held out. The
target is to write "texts" texts and has "done" so many; from those about "others" samples it will
learn too. "own" is the visitor's article, "held_out" are those held out: with alpha and greedy tau
there, of the distilled drafter that ships, where there is one, and of the copy. "race" says whether
one follows.
"""

import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from fastllm.demo import rows
from fastllm.demo.context import PageContext, announce
from fastllm.demo.folds.learn import words
from fastllm.demo.jobs import Models, RaceJob, warmed_up
from fastllm.demo.parts import heading, paragraph, scripted, view
from fastllm.demo.words import ALONE, STOP, because, title_of
from fastllm.drafters import Drafter, FamilySpec, families, spec_of, untrained
from fastllm.drafters.combined import JOINT
from fastllm.drafters.neural import NeuralDrafter
from fastllm.errors import SettingsError
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig
from fastllm.words import capital

if TYPE_CHECKING:
    from fastllm.distill.live_training import Alignment, Moment

HELD_OUT = 3
"""How many samples are held out."""

UPDATES = 100
"""How many updates it learns for, where the clock does not end it before.

On the samples the LSTM's alpha rises no further after about 90; one CPU core takes 26 seconds.
"""

FIRST = "lstm-before"
"""The drafter that is copied, where there is one."""

RACE_STARTS = '{"row":"start"'
"""How the first row of the race begins."""


def students(keys: Sequence[str]) -> tuple[str, ...]:
    """Lanes whose drafter may be trained by gradient, the most instructive first.

    What family a drafter of one's own belongs to is not known before it is loaded.
    """
    others = [name for name, spec in families().items() if not _copies_well(spec)]
    untrainable = tuple(f"{name}-" for name in others)
    found = [
        key
        for key in keys
        if key not in (ALONE, *untrained()) and JOINT not in key and not key.startswith(untrainable)
    ]

    return tuple(
        sorted(
            found, key=lambda key: (key != FIRST, -key.endswith("-before"), key.endswith("-after"))
        )
    )


def _copies_well(spec: FamilySpec) -> bool:
    """Whether a drafter can be copied and trained here: one that shares no weights with others."""
    return spec.trainable and not spec.bound_to_target


@dataclass(frozen=True)
class LiveTrainingJob:
    """A training in view, and the race after it."""

    article: str  # the visitor's
    learns: Mapping[str, str]  # other articles that it learns from, title -> text
    held_out: Mapping[str, str]  # articles that it does not learn from, title -> text
    candidates: tuple[str, ...]  # keys of drafters, the first that can be trained is copied
    offered: tuple[str, ...]  # the keys of all lanes
    config: DecodingConfig  # of the race
    training_seconds: int  # after these it stops learning, the target's writing included
    race_seconds: int  # after these the race ends where it is
    lanes: int  # the most of the race
    notices: tuple[str, ...]  # what the visitor should know about the article
    title: str  # of a sample; empty otherwise

    @property
    def seconds(self) -> int:
        """Of training and race."""
        return self.training_seconds + self.race_seconds

    def check(self, models: Models) -> None:
        """Refuses a page without a drafter that can be trained."""
        self._base(models)

    def lines(self, models: Models, stop: threading.Event) -> Iterator[str]:
        """The rows of the training, then those of the race."""
        # Here, so that the page starts without the libraries of training.
        from fastllm.distill import live_training  # noqa: PLC0415

        key, base, target = self._base(models)
        distilled = key.removesuffix("-before") + "-after" if key.endswith("-before") else ""
        shipped = models.drafter(distilled) if distilled in self.offered else None
        yours = words.yours_of(key)
        student = live_training.student_of(base, yours)

        def ids(*articles: str) -> list[Any]:
            encode, length, prefix = target.vocabulary.encode, target.source_length, target.prefix
            return [encode(article, length, prefix).ids for article in articles]

        training = live_training.ShortTraining(
            student,
            target,
            ids(self.article, *self.learns.values()),
            ids(*self.held_out.values()),
            live_training.ShortRecipe(seconds=self.training_seconds, updates=UPDATES),
            stop,
        )
        yield rows.line(
            {
                "row": "lesson",
                "run": uuid.uuid4().hex,
                "title": title_of(yours),
                "article": self.title,
                "held_out": list(self.held_out),
                "texts": 1 + len(self.learns) + len(self.held_out),
                "updates": UPDATES,
            }
        )
        for done in training.write():
            yield rows.line({"row": "writing", "done": done})
        yield rows.line({"row": "written", "others": max(0, len(training.learned) - 1)})
        reference: tuple[Alignment, Alignment] | None = None
        if isinstance(shipped, NeuralDrafter) and training.learned:
            reference = training.measure(shipped)
            own, held_out = map(_rounded, reference)
            title = title_of(distilled)
            yield rows.line({"row": "shipped", "title": title, "own": own, "held_out": held_out})
        moments: list[Moment] = []
        for moment in training.learn():
            moments.append(moment)
            yield rows.line(
                {
                    "row": "moment",
                    "seconds": round(moment.seconds, 2),
                    "updates": moment.updates,
                    "tokens": moment.tokens,
                    "loss": None if moment.loss is None else round(moment.loss, 4),
                    "own": _rounded(moment.own),
                    "held_out": _rounded(moment.held_out),
                }
            )
        if stop.is_set():
            return
        taught = len(moments) > 1
        said = [words.NO_TIME.format(self.training_seconds)]
        if taught:
            said = _said(moments[0], moments[-1], reference, title_of(distilled))
        updates = moments[-1].updates if moments else 0
        yield rows.line({"row": "taught", "updates": updates, "said": said, "race": taught})
        if taught:
            yield from self._race(models, key, student, distilled, stop)

    def _base(self, models: Models) -> tuple[str, NeuralDrafter[Any], HubTarget]:
        """The drafter to copy, its key, and the target.

        Raises:
            SettingsError: there is none.
        """
        target = models.target
        for key in self.candidates:
            drafter = models.drafter(key)
            if isinstance(drafter, NeuralDrafter) and _copies_well(spec_of(drafter.FAMILY)):
                if isinstance(target, HubTarget):
                    return key, drafter, target
        raise SettingsError(words.NO_STUDENT)

    def _race(
        self, models: Models, key: str, student: Drafter, distilled: str, stop: threading.Event
    ) -> Iterator[str]:
        """The rows of the race: the target alone, the drafter before, the copy, the shipped one."""
        yours = words.yours_of(key)
        wanted = [yours, key, ALONE, distilled][: max(2, self.lanes)]
        kept = [
            lane
            for lane in (ALONE, key, yours, distilled)
            if lane in wanted and (lane == yours or lane in self.offered)
        ]
        drafters = [student if lane == yours else models.drafter(lane) for lane in kept]
        race = warmed_up(
            models.target, drafters, self.article, self.config, seconds=self.race_seconds, stop=stop
        )
        notices = (words.PRACTISED.format(capital(title_of(yours))), *self.notices)
        yield from RaceJob(
            self.article, tuple(kept), self.config, notices, self.title, self.race_seconds
        ).rows(race)


def _said(
    first: "Moment",
    last: "Moment",
    reference: "tuple[Alignment, Alignment] | None",
    shipped: str,
) -> list[str]:
    """The result, in sentences; `reference` is what the drafter of the title `shipped` has."""
    own, held_out = reference or (None, None)
    return [
        words.learned_own(first.own.alpha, last.own.alpha, shipped, own and own.alpha),
        words.learned_held_out(first.held_out, last.held_out, shipped, held_out),
    ]


def _rounded(alignment: "Alignment") -> list[float]:
    """Alpha and tau as a row says them."""
    return [round(value, 4) for value in alignment]


def plan(context: PageContext, article: str, config: DecodingConfig) -> LiveTrainingJob:
    """The training on an article, not yet checked, and the samples.

    Raises:
        DataError: the article cannot be raced.
    """
    checked = context.checked(article)
    others = {
        title: context.checked(text).text
        for title, text in context.samples.items()
        if text != checked.text
    }
    titles = list(others)
    return LiveTrainingJob(
        article=checked.text,
        learns={title: others[title] for title in titles[:-HELD_OUT]},
        held_out={title: others[title] for title in titles[-HELD_OUT:]},
        candidates=students(context.engine.keys),
        offered=tuple(context.engine.keys),
        config=config,
        training_seconds=context.limits.training_seconds,
        race_seconds=context.limits.seconds_per_run,
        lanes=context.limits.lanes,
        notices=checked.notices,
        title=context.title_of(checked.text),
    )


def add(context: PageContext) -> None:
    """What one will see, the buttons, and the view of the training."""
    able = students(context.engine.keys)
    heading(words.TITLE)
    with gr.Column(elem_id="fl-learn"):
        if not able:
            paragraph(because(words.NO_STUDENT), "fl-learn-intro")
            return
        paragraph(
            words.intro(able[0], UPDATES, context.limits.training_seconds, HELD_OUT),
            "fl-learn-intro",
        )
        with gr.Row(elem_id="fl-learn-controls"):
            go = gr.Button(words.GO.format(UPDATES), elem_id="fl-learn-go", scale=0, min_width=180)
            halt = gr.Button(STOP, elem_id="fl-learn-stop", scale=0, min_width=80)
        progress = view(
            "fl-learn",
            scripted("folds/learn/learn.js", words.BROWSER),
            elem_id="fl-learn-view",
        )

    def learn(request: gr.Request, article: str, *settings: Any) -> Iterator[tuple[Any, Any]]:
        """Trains, then races; yields the rows so far of both, again and again."""
        for text in context.perform(
            request, lambda: plan(context, article, context.config(*settings))
        ):
            at = text.find(RACE_STARTS)
            yield (text, gr.skip()) if at < 0 else (text[:at], text[at:])

    running = context.bind(
        [go.click],
        halt,
        learn,
        [context.article, *context.settings],
        [progress, context.view],
        name="learn-",
        preprocess=False,
    )
    running.success(None, js=announce("learn-done"), api_visibility="private")
