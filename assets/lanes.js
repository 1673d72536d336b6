/* The live view: draws the rows of fastllm/demo/wire.py and replays them.

   Runs as `js_on_load` of a gr.HTML whose value is a growing NDJSON text; `element`, `props` and
   `watch` are Gradio's, `words` (every sentence) stands before this file. A race is kept as it came;
   the replay lives wholly here. Whatever a visitor or a model wrote enters the page through
   textContent, never as markup. All layout is written once a frame and never read in between. */

const root = element.querySelector(".fl-race");
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
const SPEEDS = [1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4];
const USUAL_SPEED = 3; // of SPEEDS; a race too short to be followed at it is slowed down further
const SHORTEST_REPLAY = 4; // seconds
const STATES = ["accepted", "refused", "correction", "bonus"];
const LONGEST_REPLAY = 40; // seconds; a slower race stays as it is until somebody presses play
const PAUSE_BEFORE_REPLAY = 1200;

const say = (sentence, ...values) => values.reduce((text, value) => text.replace("{}", () => value), sentence);
const percent = (p) => (p > 0.995 && p < 1 ? ">99 %" : p > 0 && p < 0.01 ? "<1 %" : `${Math.round(100 * p)} %`);
const seconds = (value) => value.toFixed(value < 10 ? 2 : 1);
const reveal = (node, shown) => node.classList.toggle("fl-hidden", !shown);

function make(tag, className, text, attributes) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  return node;
}

/* The frame: made once. */

const ui = {
  status: make("p", "fl-status"),
  badge: make("span", "fl-badge"),
  about: make("span", "fl-about", ""),
  notices: make("div", "fl-notices", undefined, { role: "status" }),
  bars: make("div", "fl-bars", undefined, { role: "group", "aria-label": words.headline }),
  tabs: make("div", "fl-tabs", undefined, { role: "tablist", "aria-label": words.lanes }),
  lanes: make("div", "fl-lanes"),
  wrong: make("p", "fl-wrong", words.wrong),
  cut: make("p", "fl-cut"),
  verdict: make("p", "fl-verdict", undefined, { role: "status" }),
  same: make("p", "fl-same"),
  replay: make("div", "fl-replay", undefined, { role: "group", "aria-label": words.replay, title: words.keys }),
  play: make("button", "fl-play", "▶", { type: "button", "aria-label": words.play }),
  position: make("input", "fl-position", undefined, { type: "range", min: "0", max: "1000", value: "0", step: "any", "aria-label": words.position }),
  clock: make("span", "fl-clock", ""),
  speed: make("select", "fl-speed", undefined, { "aria-label": words.speed }),
  legend: make("div", "fl-legend", undefined, { role: "group", "aria-label": words.legend }),
  detail: make("div", "fl-detail fl-hidden", undefined, { role: "tooltip", id: "fl-detail" }),
};
for (const speed of SPEEDS) {
  const label = speed < 1 ? `1/${Math.round(1 / speed)}×` : `${speed}×`;
  ui.speed.append(make("option", "", label, { value: String(speed) }));
}
ui.speed.selectedIndex = USUAL_SPEED;
for (const state of STATES) {
  const entry = make("span", "fl-entry");
  const shape = make("span", `fl-token fl-${state}`);
  shape.append(make("span", "fl-word", words[state]));
  if (state === "refused") entry.append(make("span", "fl-x", "×"), " ");
  entry.append(shape);
  ui.legend.append(entry);
}
ui.status.append(ui.badge, ui.about);
ui.replay.append(ui.play, ui.position, ui.clock, ui.speed);
root.append(
  ui.status, ui.notices, ui.bars, ui.tabs, ui.lanes, ui.wrong, ui.cut, ui.verdict, ui.same, ui.replay, ui.legend, ui.detail,
);

/* What is known of the race on the screen. */

let race = null;

function begin(start) {
  race = { start, end: null, time: 0, playing: false, live: start.mode === "live", moved: false, tab: 0 };
  race.lanes = start.lanes.map((lane, index) => makeLane(lane, index));
  race.tab = Math.max(0, race.lanes.length - 1);
  ui.bars.replaceChildren(make("p", "fl-headline", words.headline), ...race.lanes.map((lane) => lane.row));
  ui.bars.firstChild.append(make("span", "fl-soft", ` ${words.headline_note}`));
  ui.lanes.replaceChildren(...race.lanes.map((lane) => lane.card));
  ui.lanes.dataset.count = race.lanes.length;
  ui.tabs.replaceChildren(...race.lanes.map((lane) => lane.tab));
  ui.notices.replaceChildren(...start.notices.map((text) => make("p", "fl-notice", text)));
  ui.cut.replaceChildren(...(start.cut ? cutNotice(start.cut) : []));
  ui.verdict.textContent = ui.same.textContent = "";
  hideDetail();
  chooseTab(race.tab);
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
  const time = make("span", "fl-time", "");
  head.append(make("h3", "", lane.title), time);
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
  return { ...lane, card, time, text, foot, row, track, fill, count, tab, rounds: [], shown: 0, pending: -1 };
}

function addRound(row) {
  const lane = race.lanes[row.lane];
  const node = make("span", "fl-round fl-future");
  for (const entry of row.tokens) node.append(makeToken(entry, row));
  if (row.dropped.length && !row.tokens.some((entry) => entry.s === "refused")) node.append(makeDropped(row));
  lane.text.append(node);
  if (!lane.first) {
    lane.first = lane.text.querySelector(".fl-token");
    lane.first?.setAttribute("tabindex", "0");
  }
  lane.rounds.push({ from: row.from, to: row.to, guessed: row.kind === "speculative", node, look: "future" });
}

function makeToken(entry, row) {
  const token = make("span", `fl-token fl-${entry.s}`, undefined, { role: "button", tabindex: "-1" });
  token.entry = entry;
  const text = entry.end ? " ∎" : entry.t;
  const word = text.trimStart();
  const blank = text.slice(0, text.length - word.length) ? " " : "";
  const spoken = entry.end ? words.end : word.trim();
  token.setAttribute("aria-label", `${spoken}: ${words[entry.s]}`);
  if (entry.s === "refused") {
    token.append(make("span", "fl-x", "×", { title: words.expand }), make("span", "fl-word", blank + word));
    if (row.dropped.length) token.append(makeDropped(row));
    token.setAttribute("aria-expanded", "false");
  } else {
    token.append(blank, make("span", entry.end ? "fl-word fl-end" : "fl-word", word));
  }
  return token;
}

function makeDropped(row) {
  return make("span", "fl-dropped", row.dropped.join(""), { title: words.dropped });
}

/* Time. A lane shows the rounds that ended before `race.time`; one that has begun shows its guesses. */

const clockOf = (lane) => (lane.rounds.length ? lane.rounds[lane.rounds.length - 1].to : 0);
const total = () => Math.max(0, ...race.lanes.map(clockOf));
const atEnd = () => race.time >= total() - 1e-9;

function show(time) {
  const whole = total();
  race.time = Math.min(Math.max(0, time), whole);
  const finished = race.time >= whole - 1e-9 && (race.end || race.halted);
  const moving = race.playing || (race.live && !race.end && !race.halted);
  const longest = Math.max(1, ...race.lanes.map((lane) => lane.rounds.length));
  for (const lane of race.lanes) {
    const { rounds } = lane;
    let shown = Math.min(lane.shown, rounds.length);
    while (shown < rounds.length && rounds[shown].to <= race.time + 1e-9) shown += 1;
    while (shown > 0 && rounds[shown - 1].to > race.time + 1e-9) shown -= 1;
    const low = Math.max(0, Math.min(shown, lane.shown) - 2);
    const high = Math.min(rounds.length, Math.max(shown, lane.shown, lane.drawn || 0) + 2);
    const over = finished || shown === rounds.length && race.end;
    for (let index = low; index < high; index += 1) {
      const round = rounds[index];
      let look = "past";
      if (index >= shown) look = index === shown && round.guessed && round.from <= race.time ? "guess" : "future";
      else if (index === shown - 1 && !over) look = "now";
      if (look !== round.look) {
        round.node.className = `fl-round fl-${look}`;
        round.look = look;
      }
    }
    lane.drawn = rounds.length;
    lane.shown = shown;
    lane.count.textContent = String(shown);
    lane.fill.style.transform = `scaleX(${shown / longest})`;
    lane.track.style.setProperty("--all", race.end ? rounds.length / longest : 0);
    const done = (race.end || race.halted) && shown === rounds.length;
    lane.card.classList.toggle("fl-done", Boolean(done));
    lane.row.classList.toggle("fl-done", Boolean(done));
    writeNumbers(lane, done);
  }
  const scale = whole ? race.time / whole : 0;
  if (!ui.position.matches(":active")) ui.position.value = String(1000 * scale);
  ui.clock.textContent = `${seconds(race.time)} / ${seconds(whole)} s`;
  ui.position.setAttribute("aria-valuetext", say(words.position_value, seconds(race.time), seconds(whole)));
  ui.verdict.classList.toggle("fl-later", !finished);
  ui.same.classList.toggle("fl-later", !finished);
  root.classList.toggle("fl-moving", Boolean(moving));
}

function writeNumbers(lane, done) {
  const clock = Math.min(race.time, clockOf(lane));
  const result = race.end?.lanes[race.lanes.indexOf(lane)];
  let time = say(words.seconds, seconds(clock));
  if (done && result?.speed_up) {
    const ratio = result.speed_up;
    time += " · " + (ratio >= 1 ? say(words.speed_up, ratio.toFixed(1)) : say(words.slower, (1 / ratio).toFixed(1)));
  }
  lane.time.textContent = time;
  if (!done || !result) lane.foot.textContent = "\u00a0";
  else if (!result.drafted) lane.foot.textContent = words.alone_calls;
  else {
    const rate = (result.tokens / Math.max(1, result.calls)).toFixed(1);
    lane.foot.textContent = `${say(words.acceptance, result.accepted, result.drafted)} · ${say(words.per_call, rate)}`;
  }
}

function describe() {
  const speed = Number(ui.speed.value);
  const { start } = race;
  const writing = race.live && !race.end && !race.halted;
  ui.badge.textContent = start.mode === "live" ? words.live : words.recorded;
  ui.badge.className = `fl-badge fl-${start.mode}`;
  const pace = speed < 1 ? say(words.slowed, Math.round(1 / speed)) : speed > 1 ? say(words.sped, speed) : words.real;
  const place = start.hardware ? ` ${words.on} ${start.hardware}` : "";
  const title = start.article ? ` · ${start.article}` : "";
  ui.about.textContent = `${place} · ${writing ? words.writing : pace}${title}`;
}

/* The fastest speed, up to the usual one, at which the race can be followed. */
function suit() {
  if (ui.speed.dataset.chosen) return;
  let index = USUAL_SPEED;
  while (index > 0 && total() / SPEEDS[index] < SHORTEST_REPLAY) index -= 1;
  ui.speed.selectedIndex = index;
  describe();
}

let frame = 0;
let before = 0;
let waiting = 0;

function play(on) {
  clearTimeout(waiting);
  if (!race || !total()) return;
  if (on && atEnd()) show(0);
  race.playing = on;
  ui.play.textContent = on ? "❚❚" : "▶";
  ui.play.setAttribute("aria-label", on ? words.pause : words.play);
  cancelAnimationFrame(frame);
  if (on) {
    before = performance.now();
    frame = requestAnimationFrame(tick);
  } else show(race.time);
}

function tick(now) {
  if (!race || !race.playing) return;
  show(race.time + ((now - before) / 1000) * Number(ui.speed.value));
  before = now;
  if (atEnd()) play(false);
  else frame = requestAnimationFrame(tick);
}

function jump(time) {
  if (!race || (race.live && !race.end && !race.halted)) return;
  play(false);
  show(time);
}

function step(direction) {
  const ends = [0, ...race.lanes.flatMap((lane) => lane.rounds.map((round) => round.to))].sort((a, b) => a - b);
  const next = direction > 0 ? ends.find((end) => end > race.time + 1e-9) : ends.findLast((end) => end < race.time - 1e-9);
  jump(next ?? (direction > 0 ? total() : 0));
}

/* Rows, as they come. */

function take(row) {
  if (row.row === "start") begin(row);
  else if (!race) return;
  else if (row.row === "round") addRound(row);
  else if (row.row === "end") finish(row);
}

function finish(row) {
  race.end = row;
  const [state, sentence] = row.same;
  ui.verdict.textContent = row.verdict;
  ui.same.textContent = (state === "same" || state === "unfinished" ? "✓ " : "") + sentence;
  ui.same.dataset.state = state;
  for (const text of row.notices) ui.notices.append(make("p", "fl-notice", text));
}

let head = "";
let read = 0;
let scheduled = false;

function update() {
  scheduled = false;
  const value = typeof props.value === "string" ? props.value : "";
  const whole = value.lastIndexOf("\n") + 1;
  if (!whole) return;
  const first = value.slice(0, value.indexOf("\n"));
  const fresh = first !== head;
  if (fresh) {
    head = first;
    read = 0;
    play(false);
  } else if (whole <= read) return;
  const ended = race && !fresh && race.end;
  for (const text of value.slice(read, whole).split("\n")) if (text) take(JSON.parse(text));
  read = whole;
  describe();
  if (race.halted) return show(total());
  if (!race.live) {
    suit();
    show(calm ? total() : 0);
    if (!calm) play(true);
    return;
  }
  show(total());
  if (race.end && !ended) settle();
}

/* A live race has ended: it stays for a moment, then plays again in true proportion. */
function settle() {
  root.dataset.ran = String(Number(root.dataset.ran || 0) + 1);
  suit();
  if (calm || total() / Number(ui.speed.value) > LONGEST_REPLAY) return;
  waiting = setTimeout(() => { show(0); play(true); }, PAUSE_BEFORE_REPLAY);
}

function schedule() {
  if (scheduled) return;
  scheduled = true;
  // A hidden tab gets no frames; it is drawn when it comes back, and need not be before.
  requestAnimationFrame(update);
}

/* Tokens: the pointer and the keyboard ask what is known of one. */

function detailOf(entry) {
  const title = make("p", "fl-detail-title");
  title.append(make("b", "", entry.end ? words.end : entry.t.trim() || "·"), ` ${words[entry.s]}`);
  const parts = [title];
  const chances = [];
  if (entry.p !== undefined && entry.p !== null) chances.push(`${words.target_says} ${percent(entry.p)}`);
  if (entry.q !== undefined && entry.q !== null) chances.push(`${words.drafter_says} ${percent(entry.q)}`);
  parts.push(make("p", "", chances.join(" · ") || words.nothing_kept));
  for (const [label, choices] of [[words.instead, entry.best], [words.guesses, entry.guess]]) {
    if (!choices?.length) continue;
    const line = make("p", "", `${label}: `);
    choices.forEach(([text, p], index) => line.append(index ? ", " : "", make("b", "", text.trim() || "·"), ` ${percent(p)}`));
    parts.push(line);
  }
  return parts;
}

function showDetail(token) {
  ui.detail.replaceChildren(...detailOf(token.entry));
  reveal(ui.detail, true);
  const box = root.getBoundingClientRect();
  const place = token.getBoundingClientRect();
  const width = Math.min(320, box.width);
  ui.detail.style.width = `${width}px`;
  ui.detail.style.left = `${Math.max(0, Math.min(place.left - box.left, box.width - width))}px`;
  ui.detail.style.top = `${place.bottom - box.top + 6}px`;
}

function hideDetail() { reveal(ui.detail, false); }

const tokenAt = (event) => {
  const token = event.target.closest?.(".fl-lane .fl-token");
  return token?.entry ? token : null;
};
root.addEventListener("pointerover", (event) => {
  const token = event.pointerType === "mouse" && !race?.playing ? tokenAt(event) : null;
  if (token) showDetail(token);
  else if (event.pointerType === "mouse") hideDetail();
});
root.addEventListener("pointerleave", hideDetail);
root.addEventListener("focusin", (event) => (tokenAt(event) ? showDetail(tokenAt(event)) : hideDetail()));
root.addEventListener("focusout", hideDetail);
root.addEventListener("click", (event) => {
  const token = tokenAt(event);
  if (!token) return;
  if (token.entry.s === "refused") openRefused(token);
  showDetail(token);
});

function openRefused(token) {
  const open = token.classList.toggle("fl-open");
  token.setAttribute("aria-expanded", String(open));
}

function walk(token, direction) {
  const text = token.closest(".fl-text");
  const tokens = [...text.querySelectorAll(".fl-round:not(.fl-future):not(.fl-guess) > .fl-token")];
  const next = tokens[tokens.indexOf(token) + direction];
  if (!next) return;
  token.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

/* The keyboard. */

root.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || !race) return;
  const { key } = event;
  const direction = { ArrowLeft: -1, ArrowRight: 1 }[key];
  const token = tokenAt(event);
  if (key === "Escape") hideDetail();
  else if (token && direction) walk(token, direction);
  else if (token && (key === "Enter" || key === " ")) token.click();
  else if (event.target.matches(".fl-tab") && direction) {
    chooseTab((race.tab + direction + race.lanes.length) % race.lanes.length);
    race.lanes[race.tab].tab.focus();
  } else if (event.target.matches("select, .fl-tab")) return;
  else if (key === " " && !event.target.matches("button")) play(!race.playing);
  else if (direction) step(direction);
  else if (key === "Home") jump(0);
  else if (key === "End") jump(total());
  else return;
  event.preventDefault();
});

function chooseTab(index) {
  race.tab = index;
  race.lanes.forEach((lane, each) => {
    lane.tab.setAttribute("aria-selected", String(each === index));
    lane.tab.tabIndex = each === index ? 0 : -1;
    lane.card.classList.toggle("fl-chosen", each === index);
  });
}

ui.play.addEventListener("click", () => { if (race && (race.end || race.halted)) play(!race.playing); });
ui.position.addEventListener("input", () => jump((Number(ui.position.value) / 1000) * total()));
ui.speed.addEventListener("change", () => {
  ui.speed.dataset.chosen = "yes";
  if (race) describe();
});

/* The buttons outside say what they do. */

const running = (on) => document.body.classList.toggle("fl-running", on);
const note = (text) => { ui.notices.replaceChildren(make("p", "fl-notice", text)); };
window.addEventListener("fastllm-go", () => {
  running(true);
  play(false);
  ui.badge.textContent = words.waiting;
  ui.badge.className = "fl-badge fl-live";
  ui.about.textContent = ` ${words.waiting_for}`;
  root.classList.add("fl-waiting");
});
function halt(reason) {
  // Gradio calls a race that was stopped a failed one too, once the server has answered: too late.
  if (!document.body.classList.contains("fl-running")) return;
  running(false);
  root.classList.remove("fl-waiting");
  if (race?.live && !race.end) {
    race.halted = true;
    show(total());
  }
  if (race) describe();
  note(reason);
}
window.addEventListener("fastllm-failed", () => halt(words.failed));
window.addEventListener("fastllm-stop", () => halt(words.stopped));
watch("value", () => {
  schedule();
  if (props.value.includes('{"row":"end"')) running(false);
});

if (props.value) update();
else ui.about.textContent = words.nothing;
