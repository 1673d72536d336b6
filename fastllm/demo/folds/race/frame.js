/* The live view, first part: its frame, and the tracks that the lanes run on.

   `race.script` joins the files of `race.SCRIPTS` into one function, which is the `js_on_load` of a
   gr.HTML whose value is a growing NDJSON text (the rows of fastllm/demo/rows.py); `element`, `props` and
   `watch` are Gradio's, `words` (every sentence) stands before these files. A race is kept as it came; the
   replay lives wholly here, and the same function plays it in a file that a visitor took home. Whatever a
   visitor or a model wrote enters the page through textContent, never as markup.

   Colour means lane, shape means what a word is. What a race will need has its height from the start. */

const root = element.querySelector(".fl-race");
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
const address = new URLSearchParams(location.search);
const STATES = ["accepted", "refused", "correction", "bonus", "plain"];
const LENGTHS = ["3", "6", "12", "25", "60"]; // seconds that a replay takes
const REAL = "real";

// Signs that turn the direction of what follows: the words of others must not reorder those around them.
const TURNS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const seconds = (value) => value.toFixed(value < 10 ? 2 : 1);

/* Text that is already there is not set again: it would be laid out again. */
const write = (node, text) => { if (node.textContent !== text) node.textContent = text; };

function select(className, label, options, chosen) {
  const node = make("select", className, undefined, { "aria-label": label });
  for (const [value, text] of options) node.append(make("option", "", text, { value }));
  node.value = chosen;
  return node;
}

const ui = {
  status: make("p", "fl-status"),
  badge: make("span", "fl-badge"),
  about: make("span", "fl-about", ""),
  notices: make("div", "fl-notices", undefined, { role: "status" }),
  result: make("div", "fl-result", undefined, { role: "status" }),
  verdict: make("p", "fl-verdict"),
  same: make("p", "fl-same"),
  remarks: make("div", "fl-remarks", undefined, { role: "status" }),
  tracks: make("div", "fl-tracks", undefined, { role: "list", "aria-label": words.lanes }),
  story: make("p", "fl-story fl-soft"),
  why: make("p", "fl-why-speed"),
  replay: make("div", "fl-replay", undefined, { role: "group", "aria-label": words.replay, title: words.keys }),
  play: make("button", "fl-play", "", { type: "button" }),
  position: make("input", "fl-position", undefined, { type: "range", min: "0", max: "1000", value: "0", step: "any", "aria-label": words.position }),
  clock: make("span", "fl-tick", ""),
  speed: select("fl-speed", words.speed, [...LENGTHS.map((value) => [value, say(words.takes, value)]), [REAL, words.real]], "6"),
  axis: select("fl-axis", words.axis, [["call", words.by_call], ["time", words.by_time]], "call"),
  texts: make("section", "fl-texts", undefined, { "aria-label": words.summary }),
  texts_title: make("h2", "fl-h2", words.summary),
  copy: make("button", "fl-take", words.copy_text, { type: "button" }),
  copied: make("span", "fl-soft", "", { role: "status" }),
  pieces: make("input", "", undefined, { type: "checkbox" }),
  lanes: make("div", "fl-lanes"),
  legend: make("div", "fl-legend", undefined, { role: "group", "aria-label": words.legend }),
  wrong: make("p", "fl-wrong", words.wrong),
  cut: make("p", "fl-cut"),
  dock: make("aside", "fl-dock", undefined, { "aria-label": words.dock }),
  round: make("section", "fl-round-box", undefined, { "aria-label": words.one_round }),
  detail: make("section", "fl-detail fl-hidden", undefined, { tabindex: "-1" }),
  keep: make("details", "fl-keep"),
};

function mark(state) {
  return make("i", `fl-cell fl-mark fl-${state} fl-c0`, undefined, { "aria-hidden": "true" });
}

for (const state of STATES) {
  const entry = make("span", "fl-entry");
  entry.append(mark(state), words[state]);
  ui.legend.append(entry);
}
{
  const main = make("div", "fl-main");
  const clockBox = make("span", "fl-clock");
  clockBox.append(ui.clock);
  ui.status.append(ui.badge, ui.about);
  ui.result.append(ui.verdict, ui.same);
  ui.replay.append(ui.play, ui.position, clockBox, ui.speed, ui.axis);
  const pieces = make("label", "fl-pieces");
  pieces.append(ui.pieces, ` ${words.pieces}`);
  const head = make("div", "fl-texts-head");
  head.append(ui.texts_title, ui.copied, ui.copy, pieces);
  ui.texts.append(head, ui.lanes, ui.legend, ui.wrong, ui.cut);
  main.append(ui.status, ui.notices, ui.result, make("h2", "fl-h2", words.race), ui.tracks, ui.story, ui.why, ui.remarks, ui.replay, ui.texts, ui.keep);
  ui.dock.append(ui.round, ui.detail);
  root.append(main, ui.dock);
}

/* What is known of the race on the screen. `at` is a moment: seconds, or calls where it is shown by call. */

let race = null;

function begin(start) {
  race = { start, end: null, at: 0, playing: false, live: start.mode === "live", tokens: 0 };
  race.lanes = start.lanes.map((lane, index) => makeLane(lane, index, lane.hue));
  race.length = 0; // of the text, in tokens, once a lane has ended it
  ui.tracks.replaceChildren(...race.lanes.map((lane) => lane.row));
  ui.tracks.dataset.count = race.lanes.length;
  ui.story.textContent = start.greedy ? words.story : words.story_drawn;
  ui.notices.replaceChildren(...start.notices.map((text) => make("p", "fl-notice", text)));
  ui.remarks.replaceChildren();
  ui.why.textContent = "";
  ui.cut.replaceChildren(...(start.cut ? cutNotice(start.cut) : []));
  ui.verdict.textContent = words.racing;
  ui.same.textContent = ui.copied.textContent = "";
  delete ui.same.dataset.state;
  // Texts that are drawn differ: each lane has its own. So have those under a rule that lets them differ.
  layTexts(start.greedy && !start.lossy);
  hideDetail();
  offer();
  if (!race.live) offerRound(); // a live race keeps the one before it until it has its own
  raced = race.live ? asking : null;
  asking = null;
  stale();
  root.classList.remove("fl-waiting");
}

function cutNotice(cut) {
  return [
    say(words.cut, cut.percent) + " ", make("q", "", `… ${cut.before}`),
    make("span", "fl-scissors", " ✂ ", { "aria-hidden": "true" }), make("span", "", `${cut.after} …`),
  ];
}

function makeLane(lane, index, colour) {
  const row = make("div", `fl-lane fl-c${colour}`, undefined, { role: "listitem", "data-key": lane.key });
  const place = make("span", "fl-place", "");
  const name = make("span", "fl-name", lane.title);
  if (lane.size) name.append(" ", make("span", "fl-size", lane.size));
  if (race.start.lossy && lane.key !== "alone") name.append(" ", make("span", "fl-lossy", words.lossy));
  const track = make("div", "fl-road", undefined, { "aria-hidden": "true" });
  const run = make("div", "fl-run");
  track.append(run);
  const count = make("span", "fl-count", "0");
  const calls = make("span", "fl-calls");
  calls.append(count, ` ${words.calls}`);
  const time = make("span", "fl-time fl-tick", "");
  const ratio = make("span", "fl-time fl-ratio fl-tick", "");
  row.append(place, make("span", "fl-swatch", undefined, { "aria-hidden": "true" }), name, track, calls, time, ratio);
  row.addEventListener("pointerenter", () => { ui.lanes.dataset.lit = index; });
  row.addEventListener("pointerleave", () => { delete ui.lanes.dataset.lit; });
  return { ...lane, index, colour, row, place, run, count, time, ratio, rounds: [], written: [], shown: 0, reached: 0 };
}

/* Of a track a token is one percent; the whole is scaled to the text, which moves nothing about it. */
const FULL = 100;

function addRound(row) {
  const lane = race.lanes[row.lane];
  const round = { ...row, index: lane.rounds.length, guessed: row.kind === "speculative" };
  const from = lane.written.length;
  let refused = null;
  for (const entry of row.tokens) {
    if (entry.s === "refused") refused = entry;
    else {
      lane.written.push({ entry, round, refused, at: lane.written.length });
      refused = null;
      if (entry.end || lane.written.length >= race.start.settings.max_new_tokens) race.length = Math.max(race.length, lane.written.length);
    }
  }
  round.written = lane.written.length;
  const block = make("i", "fl-block fl-future");
  block.style.left = `${from}%`;
  block.style.width = `${round.written - from}%`;
  round.block = block;
  lane.run.append(block);
  lane.rounds.push(round);
  race.tokens += round.written - from;
  for (let at = from; at < round.written; at += 1) addToken(lane, at);
}

/* How many tokens a track is long: of one text where the lanes share it, else of each lane's own. */
function lengthOf(lane) {
  if (race.end || race.halted) {
    return race.start.greedy ? Math.max(1, ...race.lanes.map((each) => each.written.length)) : Math.max(1, lane.written.length);
  }
  if (race.start.greedy && race.length) return race.length;
  return Math.max(48, ...race.lanes.map((each) => 1.25 * each.written.length));
}

const nameOf = (entry) => (entry.end ? words.end : entry.t.trim() || "·");
