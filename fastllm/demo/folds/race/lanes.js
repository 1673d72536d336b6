/* The live view, first part: its frame, its lanes and their words.

   `race.script` joins shared.js, lanes.js, replay.js, inspect.js, keep.js and race.js into one function,
   which is the `js_on_load` of a gr.HTML whose value is a growing NDJSON text (the rows of
   fastllm/demo/rows.py); `element`, `props` and `watch` are Gradio's, `words` (every sentence) stands
   before these files. A race is kept as it came; the replay lives wholly here, and the same function
   plays it in a file that a visitor took home. Whatever a visitor or a model wrote enters the page
   through textContent, never as markup. All layout is written once a frame and never read in between. */

const root = element.querySelector(".fl-race");
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
const address = new URLSearchParams(location.search);
const STATES = ["accepted", "refused", "correction", "bonus"];
const SPEEDS = [1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4];
const USUAL_SPEED = 3; // of SPEEDS; a race too short to be followed at it is slowed down further

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

/* The frame: made once. */

const ui = {
  status: make("p", "fl-status"),
  badge: make("span", "fl-badge"),
  about: make("span", "fl-about", ""),
  notices: make("div", "fl-notices", undefined, { role: "status" }),
  bars: make("div", "fl-bars", undefined, { role: "group" }),
  tabs: make("div", "fl-tabs", undefined, { role: "tablist", "aria-label": words.lanes }),
  lanes: make("div", "fl-lanes"),
  wrong: make("p", "fl-wrong", words.wrong),
  cut: make("p", "fl-cut"),
  verdict: make("p", "fl-verdict", undefined, { role: "status" }),
  same: make("p", "fl-same"),
  replay: make("div", "fl-replay", undefined, { role: "group", "aria-label": words.replay, title: words.keys }),
  play: make("button", "fl-play", "▶", { type: "button", "aria-label": words.play }),
  position: make("input", "fl-position", undefined, { type: "range", min: "0", max: "1000", value: "0", step: "any", "aria-label": words.position }),
  clock: make("span", "fl-tick", ""),
  speed: select(
    "fl-speed", words.speed,
    SPEEDS.map((speed) => [String(speed), speed < 1 ? `1/${Math.round(1 / speed)}×` : `${speed}×`]),
    String(SPEEDS[USUAL_SPEED]),
  ),
  axis: select("fl-axis", words.axis, [["time", words.by_time], ["call", words.by_call]], "time"),
  legend: make("div", "fl-legend", undefined, { role: "group", "aria-label": words.legend }),
  keep: make("details", "fl-keep"),
  detail: make("div", "fl-detail fl-hidden", undefined, { role: "tooltip", id: "fl-detail" }),
};
for (const state of STATES) {
  const entry = make("span", "fl-entry");
  const shape = make("span", `fl-token fl-${state}`);
  shape.append(make("span", "fl-word", words[state]));
  if (state === "refused") entry.append(make("span", "fl-x", "×"), " ");
  entry.append(shape);
  ui.legend.append(entry);
}
ui.legend.append(make("span", "fl-hint fl-soft", words.hint));
ui.status.append(ui.badge, ui.about);
const clockBox = make("span", "fl-clock");
clockBox.append(ui.clock);
ui.replay.append(ui.play, ui.position, clockBox, ui.speed, ui.axis);
root.append(
  ui.status, ui.notices, ui.bars, ui.tabs, ui.lanes, ui.verdict, ui.same, ui.replay, ui.legend, ui.wrong, ui.cut,
  ui.keep, ui.detail,
);

/* What is known of the race on the screen. `at` is a moment: seconds, or calls where it is shown by call. */

let race = null;

function begin(start) {
  race = { start, end: null, at: 0, playing: false, live: start.mode === "live", tab: 0, words: 0 };
  race.lanes = start.lanes.map((lane, index) => makeLane(lane, index));
  race.tab = Math.max(0, race.lanes.length - 1);
  const headline = start.greedy ? words.headline : words.headline_rate;
  ui.bars.setAttribute("aria-label", headline);
  ui.bars.replaceChildren(make("p", "fl-headline", headline), ...race.lanes.map((lane) => lane.row));
  ui.bars.firstChild.append(make("span", "fl-soft", ` ${start.greedy ? words.headline_note : words.headline_rate_note}`));
  ui.lanes.replaceChildren(...race.lanes.map((lane) => lane.card));
  ui.lanes.dataset.count = race.lanes.length;
  ui.tabs.replaceChildren(...race.lanes.map((lane) => lane.tab));
  ui.notices.replaceChildren(...start.notices.map((text) => make("p", "fl-notice", text)));
  ui.cut.replaceChildren(...(start.cut ? cutNotice(start.cut) : []));
  ui.verdict.textContent = ui.same.textContent = "";
  hideDetail();
  chooseTab(race.tab);
  offer();
  root.classList.remove("fl-waiting");
}

function cutNotice(cut) {
  return [
    say(words.cut, cut.percent) + " ", make("q", "", `… ${cut.before}`),
    make("span", "fl-scissors", " ✂ ", { "aria-hidden": "true" }), make("span", "", `${cut.after} …`),
  ];
}

function makeLane(lane, index) {
  const id = `fl-lane-${index}`;
  const card = make("section", "fl-lane", undefined, { id, "aria-label": lane.title, "data-key": lane.key });
  const head = make("div", "fl-lane-head");
  const time = make("span", "fl-tick", "");
  const timeBox = make("p", "fl-time");
  timeBox.append(time);
  const title = make("h3", "", lane.title);
  if (race.start.lossy && lane.key !== "alone") title.append(" ", make("span", "fl-lossy", words.lossy));
  head.append(title, timeBox);
  const text = make("div", "fl-text", undefined, { role: "group", "aria-label": say(words.summary_of, lane.title) });
  const foot = make("p", "fl-foot", "\u00a0");
  card.append(head, text, foot);

  const row = make("div", "fl-bar-row");
  const track = make("div", "fl-track", undefined, { "aria-hidden": "true" });
  const fill = make("div", "fl-fill", undefined, { "data-key": lane.key });
  track.append(fill);
  const count = make("span", "fl-count", "0");
  row.append(make("span", "fl-bar-name", lane.title), track, count);

  const tab = make("button", "fl-tab", lane.title, { type: "button", role: "tab", "aria-controls": id });
  tab.addEventListener("click", () => chooseTab(index));
  return { ...lane, card, time, text, foot, row, track, fill, count, tab, rounds: [], shown: 0 };
}

function addRound(row) {
  const lane = race.lanes[row.lane];
  const node = make("span", "fl-round fl-future");
  const round = { ...row, node, index: lane.rounds.length, guessed: row.kind === "speculative", look: "future" };
  for (const entry of row.tokens) node.append(makeToken(entry, round));
  if (row.dropped.length && !row.tokens.some((entry) => entry.s === "refused")) node.append(makeDropped(row));
  lane.text.append(node);
  if (!lane.first) {
    lane.first = lane.text.querySelector(".fl-token");
    lane.first?.setAttribute("tabindex", "0");
  }
  round.written = (lane.rounds.at(-1)?.written ?? 0) + row.tokens.filter((entry) => entry.s !== "refused").length;
  lane.rounds.push(round);
  race.words += row.tokens.length;
}

function makeToken(entry, round) {
  const token = make("span", `fl-token fl-${entry.s}`, undefined, { role: "button", tabindex: "-1" });
  token.entry = entry;
  token.round = round;
  const text = entry.end ? " ∎" : entry.t;
  const word = text.trimStart();
  const blank = text.slice(0, text.length - word.length) ? " " : "";
  token.setAttribute("aria-label", `${nameOf(entry)}: ${words[entry.s]}`);
  if (entry.s === "refused") {
    token.append(make("span", "fl-x", "×", { title: words.expand }), make("span", "fl-word", blank + word));
    if (round.dropped.length) token.append(makeDropped(round));
    token.setAttribute("aria-expanded", "false");
  } else {
    token.append(blank, make("span", entry.end ? "fl-word fl-end" : "fl-word", word));
  }
  return token;
}

function makeDropped(row) {
  const text = row.dropped.map((entry) => (entry.end ? " ∎" : entry.t)).join("");
  return make("span", "fl-dropped", text, { title: words.dropped });
}

const nameOf = (entry) => (entry.end ? words.end : entry.t.trim() || "·");

function chooseTab(index) {
  race.tab = index;
  race.lanes.forEach((lane, each) => {
    lane.tab.setAttribute("aria-selected", String(each === index));
    lane.tab.tabIndex = each === index ? 0 : -1;
    lane.card.classList.toggle("fl-chosen", each === index);
  });
}
