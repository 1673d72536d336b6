/* The live view, second part: time, the keyboard, and the link that brings a moment back.

   A lane shows the rounds that ended before `race.at`; one that has begun shows its guesses. The axis
   is time, or calls: then every call takes equally long, and the lanes are compared call by call. */

const SHORTEST_REPLAY = 4; // seconds
const LONGEST_REPLAY = 40; // seconds; a slower race stays as it is until somebody presses play
const LONG_TEXT = 600; // words of all lanes; more are not laid out anew in every frame of a drag

const byCall = () => ui.axis.value === "call";
const startOf = (round) => (byCall() ? round.index : round.from);
const endOf = (round) => (byCall() ? round.index + 1 : round.to);
const lastEnd = (lane) => (lane.rounds.length ? endOf(lane.rounds[lane.rounds.length - 1]) : 0);
const total = () => Math.max(0, ...race.lanes.map(lastEnd));
const clockOf = (lane) => (lane.rounds.length ? lane.rounds[lane.rounds.length - 1].to : 0);
const longestClock = () => Math.max(0, ...race.lanes.map(clockOf));
const atEnd = () => race.at >= total() - 1e-9;
const writing = () => race.live && !race.end && !race.halted;

/* What is past and what is to come take the same room; a guess does not, and moves the words after it.
   So a drag through a long text shows the guesses when it pauses. */
function show(at, dragged = false) {
  const settled = !dragged || race.words <= LONG_TEXT;
  const whole = total();
  race.at = Math.min(Math.max(0, at), whole);
  const finished = race.at >= whole - 1e-9 && (race.end || race.halted);
  const moving = race.playing || writing();
  const longest = Math.max(1, ...race.lanes.map((lane) => lane.rounds.length));
  for (const lane of race.lanes) {
    const { rounds } = lane;
    let shown = Math.min(lane.shown, rounds.length);
    while (shown < rounds.length && endOf(rounds[shown]) <= race.at + 1e-9) shown += 1;
    while (shown > 0 && endOf(rounds[shown - 1]) > race.at + 1e-9) shown -= 1;
    const low = Math.max(0, Math.min(shown, lane.shown) - 2);
    const high = Math.min(rounds.length, Math.max(shown, lane.shown, lane.drawn || 0) + 2);
    const over = finished || (shown === rounds.length && race.end);
    for (let index = low; index < high; index += 1) {
      const round = rounds[index];
      let look = "past";
      if (index >= shown) look = settled && index === shown && round.guessed && startOf(round) <= race.at ? "guess" : "future";
      else if (settled && index === shown - 1 && !over) look = "now";
      if (look !== round.look) {
        round.node.className = `fl-round fl-${look}`;
        round.look = look;
      }
    }
    lane.drawn = rounds.length;
    lane.shown = shown;
    // Texts that were drawn differ in length: there the bar is what a call gave, of what it can give.
    const rate = shown ? rounds[shown - 1].written / shown : 0;
    write(lane.count, race.start.greedy ? String(shown) : rate.toFixed(1));
    lane.fill.style.transform = `scaleX(${race.start.greedy ? shown / longest : rate / (race.start.gamma + 1)})`;
    const done = (race.end || race.halted) && shown === rounds.length;
    lane.card.classList.toggle("fl-done", Boolean(done));
    lane.row.classList.toggle("fl-done", Boolean(done));
    writeNumbers(lane, done);
  }
  if (!ui.position.matches(":active")) ui.position.value = String(whole ? (1000 * race.at) / whole : 0);
  const [clock, spoken] = byCall()
    ? [say(words.call_clock, Math.floor(race.at + 1e-9), whole), words.position_calls]
    : [`${seconds(race.at)} / ${seconds(whole)} s`, words.position_value];
  write(ui.clock, clock);
  ui.position.setAttribute(
    "aria-valuetext",
    byCall() ? say(spoken, Math.floor(race.at + 1e-9), whole) : say(spoken, seconds(race.at), seconds(whole)),
  );
  ui.verdict.classList.toggle("fl-later", !finished);
  ui.same.classList.toggle("fl-later", !finished);
  root.classList.toggle("fl-moving", Boolean(moving));
}

const LEVEL = 0.05; // of the logarithm of a ratio: within 5 % two lanes are as fast

function writeNumbers(lane, done) {
  const clock = byCall() ? lane.rounds[lane.shown - 1]?.to ?? 0 : Math.min(race.at, clockOf(lane));
  const result = race.end?.lanes[race.lanes.indexOf(lane)];
  let time = say(words.seconds, seconds(clock));
  if (done && result?.speed_up) {
    const ratio = result.speed_up;
    if (Math.abs(Math.log(ratio)) < LEVEL) time += ` · ${words.level}`;
    else time += " · " + (ratio > 1 ? say(words.speed_up, ratio.toFixed(1)) : say(words.slower, (1 / ratio).toFixed(1)));
    if (!race.start.greedy) time += ` ${words.per_token}`;
  }
  write(lane.time, time);
  if (!lane.shown && !byCall()) write(lane.foot, words.reading); // nothing is written before the encoding is done
  else if (!done || !result) write(lane.foot, "\u00a0");
  else if (!result.drafted) write(lane.foot, words.alone_calls);
  else {
    const rate = (result.tokens / Math.max(1, result.calls)).toFixed(1);
    write(lane.foot, `${say(words.acceptance, result.accepted, result.drafted)} · ${say(words.per_call, rate)}`);
  }
}

function describe() {
  const speed = Number(ui.speed.value);
  const { start } = race;
  ui.badge.textContent = start.mode === "live" ? words.live : words.recorded;
  ui.badge.className = `fl-badge fl-${start.mode}`;
  const pace = speed < 1 ? say(words.slowed, Math.round(1 / speed)) : speed > 1 ? say(words.sped, speed) : words.real;
  const place = start.hardware ? ` ${words.on} ${start.hardware}` : "";
  const title = start.article ? ` · ${start.article}` : "";
  const manner = stopping ? words.stopping : writing() ? words.writing : byCall() ? words.call_pace : pace;
  ui.about.textContent = `${place} · ${manner}${title}`;
}

/* The fastest speed, up to the usual one, at which the race can be followed. */
function suit() {
  if (!ui.speed.dataset.chosen) {
    let index = USUAL_SPEED;
    while (index > 0 && longestClock() / SPEEDS[index] < SHORTEST_REPLAY) index -= 1;
    ui.speed.selectedIndex = index;
  }
  describe();
}

/* By call, a replay takes as long as it would by time: a call is as long as the slowest lane's mean. */
const pace = () => Number(ui.speed.value) * (byCall() ? total() / Math.max(1e-9, longestClock()) : 1);

let stopping = false; // a live race that the visitor has stopped, and the server not yet
let frame = 0;
let before = 0;
let waiting = 0;
let pausing = 0;

function play(on) {
  clearTimeout(waiting);
  if (!race || !total()) return;
  if (on && atEnd()) show(0);
  if (on) hideDetail();
  race.playing = on;
  ui.play.textContent = on ? "❚❚" : "▶";
  ui.play.setAttribute("aria-label", on ? words.pause : words.play);
  cancelAnimationFrame(frame);
  if (on) {
    before = performance.now();
    frame = requestAnimationFrame(tick);
  } else show(race.at);
}

function tick(now) {
  if (!race || !race.playing) return;
  show(race.at + ((now - before) / 1000) * pace());
  before = now;
  if (atEnd()) play(false);
  else frame = requestAnimationFrame(tick);
}

function jump(at, dragged = false) {
  if (!race || writing()) return;
  clearTimeout(waiting);
  if (race.playing) play(false);
  show(at, dragged);
}

function restart() {
  if (!race || writing()) return;
  show(0);
  play(true);
}

function step(direction) {
  const ends = [0, ...race.lanes.flatMap((lane) => lane.rounds.map(endOf))].sort((a, b) => a - b);
  const next = direction > 0 ? ends.find((end) => end > race.at + 1e-9) : ends.findLast((end) => end < race.at - 1e-9);
  jump(next ?? (direction > 0 ? total() : 0));
}

/* The other axis, at the same moment: after the call that was the last to end. */
function turn() {
  if (!race) return;
  const end = race.lanes.every((lane) => lane.shown === lane.rounds.length);
  const moment = latest(); // what is shown has not changed yet
  show(end ? total() : moment ? endOf(moment) : 0);
  describe();
}

/* The round that was the last to end before now; of several at once the last lane's. */
function latest() {
  const last = race.lanes.filter((lane) => lane.shown).map((lane) => lane.rounds[lane.shown - 1]);
  return last.sort((a, b) => endOf(b) - endOf(a) || b.lane - a.lane)[0];
}

/* A moment as a link: what was raced, and the call that was the last to end. Calls, not seconds: these
   are another machine's own. */

const SETTING_NAMES = ["gamma", "temperature", "top_p", "seed", "max_new_tokens", "verification", "lenience"];

function linkOf() {
  const { start } = race;
  const link = new URLSearchParams();
  if (start.article) link.set("sample", start.article);
  link.set("lanes", start.lanes.map((lane) => lane.key).join(","));
  for (const name of SETTING_NAMES) link.set(name, String(start.settings[name]));
  const moment = atEnd() ? null : latest();
  if (!atEnd()) link.set("at", moment ? `${race.lanes[moment.lane].key}:${moment.index + 1}` : "start");
  if (byCall()) link.set("by", "call");
  return `${location.origin}${location.pathname}?${link}`;
}

/* Whether the race on the screen is the one that the address asks for; null where it asks for none. */
function asked() {
  if (!address.has("lanes")) return null;
  const { start } = race;
  return (
    (address.get("sample") ?? "") === start.article &&
    address.get("lanes") === start.lanes.map((lane) => lane.key).join(",") &&
    SETTING_NAMES.every((name) => !address.has(name) || address.get(name) === String(start.settings[name]))
  );
}

let restored = false;

/* Goes to the moment of the address, once; says whether it did. */
function restore() {
  if (restored || !asked()) return false;
  restored = true;
  if (address.get("by") === "call") ui.axis.value = "call";
  const at = address.get("at") ?? "";
  const [, key, count] = /^(.*):(\d+)$/.exec(at) ?? [];
  const round = race.lanes.find((lane) => lane.key === key)?.rounds[Number(count) - 1];
  suit();
  jump(at === "start" ? 0 : round ? endOf(round) : total());
  return true;
}

/* The keyboard. */

const presenting = address.get("present") === "1";
if (presenting) document.documentElement.classList.add("fl-present");

function press(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || !race) return;
  const { key, target } = event;
  const direction = { ArrowLeft: -1, ArrowRight: 1 }[key];
  const token = tokenAt(event);
  if (key === "Escape") hideDetail();
  else if (target.closest?.(".fl-keep, .fl-detail")) return;
  else if (token && direction) walk(token, direction);
  else if (token && (key === "Enter" || key === " ")) token.click();
  else if (target.matches(".fl-tab") && direction) {
    chooseTab((race.tab + direction + race.lanes.length) % race.lanes.length);
    race.lanes[race.tab].tab.focus();
  } else if (target.matches("select, .fl-tab")) return;
  else if (key === " " && !target.matches("button")) play(!race.playing);
  else if (direction) step(direction);
  else if (key === "Home") jump(0);
  else if (key === "End") jump(total());
  else if (key === "r" || key === "R") restart();
  else return;
  event.preventDefault();
}
root.addEventListener("keydown", press);
// On a stage nothing need have the focus; elsewhere these keys scroll the page.
if (presenting) {
  document.addEventListener("keydown", (event) => { if (event.target === document.body) press(event); });
}

ui.play.addEventListener("click", () => { if (race && !writing()) play(!race.playing); });
ui.position.addEventListener("input", () => {
  jump((Number(ui.position.value) / 1000) * total(), true);
  clearTimeout(pausing);
  pausing = setTimeout(() => { if (race && !race.playing) show(race.at); }, 150);
});
ui.speed.addEventListener("change", () => {
  ui.speed.dataset.chosen = "yes";
  if (race) describe();
});
ui.axis.addEventListener("change", turn);
