/* The live view, fourth part: one call of the target in slow motion. It is a real one, of this race.

   Five steps: the guesses slide in; the target sweeps over them once; ticks; the first wrong one falls, and
   those after it go with it; the target's own word drops in. Without motion it is a still picture. */

const STEP = 850; // milliseconds

let stepping = 0;
let afterRound = null;

const guessesOf = (round) => [
  ...round.tokens.filter((entry) => entry.s === "accepted" || entry.s === "refused"), ...round.dropped,
];
const ownOf = (round) => round.tokens.find((entry) => !["accepted", "refused"].includes(entry.s));

/* The call that shows most: guesses that stand, one that falls, and a word of the target's own. */
function telling() {
  const rounds = race.lanes.flatMap((lane) => lane.rounds.filter((round) => round.guessed));
  const key = (round) => race.lanes[round.lane].key;
  const worth = (round) => {
    const stood = round.tokens.filter((entry) => entry.s === "accepted").length;
    const fell = round.tokens.some((entry) => entry.s === "refused");
    const own = ownOf(round); // the end of the text as a fix explains little
    return (fell && stood > 1 && own && !own.end ? 10 : 0) + (key(round).endsWith("-after") ? 5 : 0) + stood
      + (/^\s*\w{3,}/.test(own?.t ?? "") ? 4 : 0);
  };
  return rounds.sort((a, b) => worth(b) - worth(a))[0] ?? null;
}

/* The words before a call, as far as they help to read it. */
function lead(round) {
  const lane = race.lanes[round.lane];
  const start = round.index ? lane.rounds[round.index - 1].written : 0;
  const text = lane.written.slice(Math.max(0, start - 6), start).map(({ entry }) => entry.t).join("");
  return (start > 6 ? "… " : "") + text.trim();
}

function picture(round) {
  const lane = race.lanes[round.lane];
  const guesses = guessesOf(round);
  const own = ownOf(round);
  const stood = guesses.filter((entry) => entry.s === "accepted").length;
  const box = make("div", `fl-scene fl-c${lane.colour}`);
  const chips = make("ol", "fl-chips");
  const guessed = (entry, index) => {
    const chip = make("li", `fl-chip fl-${entry.s}`);
    chip.style.setProperty("--fl-n", index);
    chip.append(make("span", "fl-chip-word", nameOf(entry)), make("span", "fl-chip-mark", { accepted: "✓", refused: "×" }[entry.s] ?? "–", { "aria-hidden": "true" }));
    chip.append(make("span", "fl-unseen", ` ${words[entry.s]}`));
    return chip;
  };
  chips.append(...guesses.map(guessed));
  // The other branches of a tree: each parts from the guesses above after so many of them.
  const branches = (round.branches ?? []).map(({ at, tokens }) => {
    const list = make("ol", "fl-chips fl-branch");
    list.append(make("li", "fl-soft", say(words.branch, at)), ...tokens.map((entry, index) => guessed(entry, at + index)));
    return list;
  });
  if (own) {
    const chip = make("li", `fl-chip fl-own fl-${own.s}`);
    chip.append(make("span", "fl-chip-word", nameOf(own)), make("span", "fl-unseen", ` ${words[own.s]}`));
    // In the place of the refused guess; those behind it are dropped.
    chips.insertBefore(chip, chips.children[own.s === "correction" ? stood : guesses.length] ?? null);
  }
  const before = make("p", "fl-lead", lead(round));
  const sweep = make("div", "fl-sweep", undefined, { "aria-hidden": "true" });
  const stage = make("div", "fl-stage");
  stage.append(chips, ...branches, sweep);
  const gained = round.tokens.filter((entry) => entry.s !== "refused").length;
  const captions = make("ol", "fl-captions");
  const told = guesses.length
    ? [
      say(words.step_guess, lane.title, guesses.length),
      say(words.step_read, guesses.length),
      stood === guesses.length ? words.step_all : say(words.step_keep, stood),
      own?.s === "correction" ? say(words.step_fix, nameOf(own)) : own ? say(words.step_extra, nameOf(own)) : words.step_no_own,
    ]
    : [words.why_plain];
  for (const text of told) captions.append(make("li", "", text));
  box.append(before, stage, captions, make("p", "fl-gained", say(gained === 1 ? words.gained_one : words.gained, gained)));
  return box;
}

const LAST_STEP = 5;

function offerRound() {
  stopRound();
  const round = race ? telling() : null;
  ui.round.replaceChildren(make("h2", "fl-h2", words.one_round));
  if (!round) return ui.round.append(make("p", "fl-soft", words.no_round));
  const scene = picture(round);
  scene.dataset.step = LAST_STEP;
  ui.round.append(scene);
  if (!calm) ui.round.append(button("fl-take fl-watch", words.watch_round, () => playRound(scene)));
  ui.round.scene = scene;
}

/* Plays a scene from its beginning; `then` is called at its end, or when it is stopped by something else. */
function playRound(scene, then) {
  stopRound();
  if (calm) {
    scene.dataset.step = LAST_STEP;
    return then?.();
  }
  afterRound = then ?? null;
  scene.dataset.step = 0;
  const next = (at) => {
    scene.dataset.step = at;
    if (at < LAST_STEP) stepping = setTimeout(next, STEP, at + 1);
    else {
      stepping = 0;
      const done = afterRound;
      afterRound = null;
      done?.();
    }
  };
  stepping = setTimeout(next, 60, 1);
  scene.playing = true;
  root.scene = scene;
}

function stopRound() {
  clearTimeout(stepping);
  if (stepping && root.scene) root.scene.dataset.step = LAST_STEP;
  stepping = 0;
  afterRound = null;
}
