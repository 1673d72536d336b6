/* The live view, third part: time, and the keyboard.

   A lane shows the rounds that ended before `race.at`. The axis is calls, each of which then takes equally
   long, or time. A replay takes as many seconds as the visitor chose. */

const byCall = () => ui.axis.value === "call";
const endOf = (round) => (byCall() ? round.index + 1 : round.to);
const lastEnd = (lane) => (lane.rounds.length ? endOf(lane.rounds[lane.rounds.length - 1]) : 0);
const total = () => Math.max(0, ...race.lanes.map(lastEnd));
const clockOf = (lane) => (lane.rounds.length ? lane.rounds[lane.rounds.length - 1].to : 0);
const longestClock = () => Math.max(0, ...race.lanes.map(clockOf));
const atEnd = () => race.at >= total() - 1e-9;
const writing = () => race.live && !race.end && !race.halted;

/* Everything keeps its place: what is to come is there already, unseen. */
function show(at) {
  const whole = total();
  race.at = Math.min(Math.max(0, at), whole);
  for (const lane of race.lanes) {
    const { rounds } = lane;
    const before = lane.shown;
    let shown = Math.min(before, rounds.length);
    while (shown < rounds.length && endOf(rounds[shown]) <= race.at + 1e-9) shown += 1;
    while (shown > 0 && endOf(rounds[shown - 1]) > race.at + 1e-9) shown -= 1;
    for (let index = Math.min(shown, before); index < Math.max(shown, before); index += 1) {
      rounds[index].block.classList.toggle("fl-future", index >= shown);
    }
    lane.shown = shown;
    const scale = FULL / lengthOf(lane);
    if (scale !== lane.scale) lane.run.style.transform = `scaleX(${scale})`;
    lane.scale = scale;
    write(lane.count, String(shown));
    const done = Boolean(race.end || race.halted) && shown === rounds.length && shown > 0;
    lane.row.classList.toggle("fl-done", done);
    const place = done && race.places ? race.places[lane.index] : "";
    write(lane.place, place);
    lane.row.classList.toggle("fl-won", place === words.places[0]);
    writeTime(lane, done);
  }
  reveal_words();
  if (!ui.position.matches(":active")) ui.position.value = String(whole ? (1000 * race.at) / whole : 0);
  const [clock, spoken] = byCall()
    ? [say(words.call_clock, Math.floor(race.at + 1e-9), whole), words.position_calls]
    : [`${seconds(race.at)} / ${seconds(whole)} s`, words.position_value];
  write(ui.clock, clock);
  ui.position.setAttribute(
    "aria-valuetext",
    byCall() ? say(spoken, Math.floor(race.at + 1e-9), whole) : say(spoken, seconds(race.at), seconds(whole)),
  );
  root.classList.toggle("fl-moving", Boolean(race.playing || writing()));
  label();
}

const LEVEL = 0.05; // of the logarithm of a ratio: within 5 % two lanes are as fast

function writeTime(lane, done) {
  const clock = byCall() ? lane.rounds[lane.shown - 1]?.to ?? 0 : Math.min(race.at, clockOf(lane));
  const result = race.end?.lanes[lane.index];
  write(lane.time, say(words.seconds, seconds(clock)));
  const ratio = done && result?.speed_up;
  if (!ratio) return write(lane.ratio, "");
  const level = Math.abs(Math.log(ratio)) < LEVEL;
  write(lane.ratio, level ? words.level : ratio > 1 ? say(words.speed_up, ratio.toFixed(1)) : say(words.slower, (1 / ratio).toFixed(1)));
}

/* Places: who needed the fewest calls, or where texts differ in length the fewest for a token. */
function places() {
  const cost = (result) => (race.start.greedy ? result.calls : result.calls / Math.max(1, result.tokens));
  const costs = race.end.lanes.map(cost);
  return costs.map((own) => words.places[costs.filter((other) => other < own - 1e-9).length] ?? "");
}

function label() {
  const does = race.playing ? `❚❚ ${words.pause}` : `▶ ${atEnd() ? words.replay_slowly : words.play}`;
  write(ui.play, does);
}

function describe() {
  const { start } = race;
  write(ui.badge, start.mode === "live" ? words.live : words.recorded);
  ui.badge.className = `fl-badge fl-${start.mode}`;
  const factor = longestClock() ? replaySeconds() / longestClock() : 1;
  const pace = ui.speed.value === REAL ? words.real : factor > 1 ? say(words.slowed, Math.round(factor)) : say(words.sped, (1 / factor).toFixed(1));
  const place = start.hardware ? ` ${words.on} ${start.hardware}` : "";
  const title = start.article ? ` · ${start.article}` : "";
  const manner = stopping ? words.stopping : writing() ? words.writing : byCall() ? words.call_pace : pace;
  write(ui.about, `${place} · ${manner}${title}`);
}

/* How long a replay takes. At real speed it is as long as it was, by call as long as the slowest lane. */
const replaySeconds = () => (ui.speed.value === REAL ? Math.max(1e-9, longestClock()) : Number(ui.speed.value));

let stopping = false; // a live race that the visitor has stopped, and the server not yet
let frame = 0;
let before = 0;

function play(on) {
  if (!race || !total()) return;
  if (on && atEnd()) show(0);
  race.playing = on;
  cancelAnimationFrame(frame);
  if (on) {
    before = performance.now();
    frame = requestAnimationFrame(tick);
    label();
  } else {
    show(race.at);
    remember();
  }
}

function tick(now) {
  if (!race || !race.playing) return;
  show(race.at + ((now - before) / 1000) * (total() / replaySeconds()));
  before = now;
  if (atEnd()) play(false);
  else frame = requestAnimationFrame(tick);
}

function jump(at) {
  if (!race || writing()) return;
  stopRound();
  if (race.playing) play(false);
  show(at);
  remember();
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
  remember();
}

/* The round that was the last to end before now; of several at once the last lane's. */
function latest() {
  const last = race.lanes.filter((lane) => lane.shown).map((lane) => lane.rounds[lane.shown - 1]);
  return last.sort((a, b) => endOf(b) - endOf(a) || b.lane - a.lane)[0];
}

/* The keyboard. */

const presenting = address.get("present") === "1";
if (presenting) document.documentElement.classList.add("fl-present");

function press(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || !race) return;
  const { key, target } = event;
  const direction = { ArrowLeft: -1, ArrowRight: 1 }[key];
  const text = target.closest?.(".fl-text")?.text;
  if (key === "Escape") closeDetail();
  else if (target.closest?.(".fl-keep, .fl-detail, .fl-round-box, label")) return;
  else if (text && direction) walk(text, direction);
  else if (text && (key === "Enter" || key === " ")) openWord(text);
  else if (target.matches("select")) return;
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

ui.play.addEventListener("click", () => {
  if (!race || writing()) return;
  stopRound();
  play(!race.playing);
});
ui.position.addEventListener("input", () => jump((Number(ui.position.value) / 1000) * total()));
ui.speed.addEventListener("change", () => { if (race) describe(); });
ui.axis.addEventListener("change", turn);
