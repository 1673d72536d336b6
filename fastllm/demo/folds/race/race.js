/* The live view, last part: rows as they come, and the buttons outside. */

function take(row) {
  if (row.row === "start") begin(row);
  else if (!race) return;
  else if (row.row === "round") addRound(row);
  else if (row.row === "end") finish(row);
}

function finish(row) {
  race.end = row;
  race.places = places();
  const [state, sentence] = row.same;
  if (race.shared && state === "differ") layTexts(false);
  ui.verdict.textContent = row.verdict;
  ui.same.textContent = (state === "same" || state === "unfinished" ? "✓ " : "") + sentence;
  ui.same.dataset.state = state;
  ui.why.textContent = row.why;
  // Below the tracks: above them they would move what one looks at.
  ui.remarks.replaceChildren(...row.notices.map((text) => make("p", "fl-notice", text)));
  speak();
  offer();
  offerRound();
}

/* A row as it is shown. The last one holds the traces, which stay as they were made. */
const plain = (text) => (text.startsWith('{"row":"end"') ? text : text.replace(TURNS, ""));

let head = "";
let read = 0;
let scheduled = false;
let called_off = false;
let first_race = true;
let again = keptRace(); // a race that was run live before this reload: shown instead of the recorded one

function update() {
  scheduled = false;
  const value = again ?? (typeof props.value === "string" ? props.value : "");
  const whole = value.lastIndexOf("\n") + 1;
  if (!whole) return;
  const first = value.slice(0, value.indexOf("\n"));
  const fresh = first !== head;
  if (called_off) return; // rows that were on their way when the race was stopped
  if (fresh) {
    head = first;
    read = 0;
    stopRound();
    if (race) race.playing = false;
  } else if (whole <= read) return;
  const ended = race && !fresh && race.end;
  for (const text of value.slice(read, whole).split("\n")) if (text) take(JSON.parse(plain(text)));
  read = whole;
  describe();
  if (race.halted) return show(total());
  if (!race.live) return openRecorded();
  show(total());
  if (race.end && !ended) settle(value);
}

/* A recorded race stands at its end at once, but when the page opens: then one call of it is played
   slowly, where there is room beside the race, and after that the race. */
function openRecorded() {
  const opening = first_race;
  first_race = false;
  if (restore()) {
    race.settled = true;
    return;
  }
  const other = opening && asked() === false; // the address stays: its own race may be on its way
  if (other) note(address.get("sample") ? words.link_waiting : words.link_without);
  race.settled = !other;
  if (!opening) {
    show(total());
    stale();
    return writeAddress(true);
  }
  if (calm || other) return show(total());
  show(0);
  const beside = matchMedia("(min-width: 1100px)").matches;
  if (beside && ui.round.scene) playRound(ui.round.scene, () => play(true));
  else play(true);
}

/* A live race has ended. It stays as it is; a replay is a button. */
function settle(value) {
  root.dataset.ran = String(Number(root.dataset.ran || 0) + 1);
  first_race = false;
  race.settled = true;
  const there = restore();
  stale();
  if (keptRace() === value) return; // it came from there
  keepRace(value);
  writeAddress(!there);
}

function schedule() {
  if (scheduled) return;
  scheduled = true;
  // A hidden tab gets no frames; it is drawn when it comes back, and need not be before.
  requestAnimationFrame(update);
}

/* The buttons outside say what they do. */

const ongoing = () => document.body.classList.contains("fl-running");
const running = (on) => {
  document.body.classList.toggle("fl-running", on);
  stopping = stopping && on;
};
const note = (text) => { ui.notices.replaceChildren(make("p", "fl-notice", text)); };

/* Gradio knows the place in the queue, and shows it in words that are hidden here: "queue: 2/3 | 1.2/9.5s". */
function wait() {
  if (!root.classList.contains("fl-waiting")) return;
  const told = document.querySelector('#fl-view [data-testid="status-tracker"]')?.textContent ?? "";
  const [, place] = /queue: (\d+)/.exec(told) ?? [];
  const [, waited, whole] = /\| ([\d.]+)\/([\d.]+)s/.exec(told) ?? []; // as Gradio expects, once it has seen a race
  const left = Math.ceil(whole - waited);
  write(ui.about, ` ${place ? say(words.place, place) : words.waiting_for}${place && left > 0 ? say(words.expected, left) : ""}`);
  setTimeout(wait, 100);
}

window.addEventListener("fastllm-go", () => {
  running(true);
  play(false);
  stopRound();
  ui.badge.textContent = words.waiting;
  ui.badge.className = "fl-badge fl-live";
  stopping = called_off = false;
  asking = JSON.stringify(chosen);
  root.classList.add("fl-waiting");
  wait();
});

/* What is written stands still at once. It is over when the server has let go of it: until then Gradio
   takes it for a race that goes on, and begins no other. */
window.addEventListener("fastllm-stop", () => {
  if (!ongoing() || stopping) return;
  stopping = true;
  called_off = root.classList.contains("fl-waiting");
  root.classList.remove("fl-waiting");
  halt();
});

/* Gradio calls what was stopped a failure too. */
window.addEventListener("fastllm-failed", () => {
  if (!ongoing()) return;
  const told = [...document.querySelectorAll('.error [data-testid="toast-text"]')].pop()?.textContent.trim();
  const reason = stopping ? words.stopped : told ? say(words.refused_start, told) : words.failed;
  called_off ||= root.classList.contains("fl-waiting");
  root.classList.remove("fl-waiting");
  if (race && !stopping) show(total()); // the race before it, whole
  running(false);
  halt();
  note(reason);
});

function halt() {
  if (race?.live && !race.end && !called_off) {
    race.halted = true;
    ui.verdict.textContent = words.unfinished;
    show(total());
  }
  if (race) describe();
  else {
    ui.badge.textContent = "";
    ui.badge.className = "fl-badge";
    ui.about.textContent = stopping ? words.stopping : words.nothing;
  }
}

/* What is chosen above may no longer be what is shown below: then the race says so, and the address keeps
   what is chosen. What the page itself puts into a field is no change. */
function stale() {
  const on = touched && Boolean(race?.end) && differs();
  root.classList.toggle("fl-stale", on);
  const shown = ui.notices.querySelector(".fl-is-stale");
  if (on && !shown) ui.notices.append(make("p", "fl-notice fl-is-stale", words.stale));
  else if (!on) shown?.remove();
}

if (!props.file) {
  for (const kind of ["input", "change", "click"]) {
    document.addEventListener(kind, (event) => {
      touched ||= event.isTrusted && Boolean(event.target.closest?.("#fl-lanes, #fl-article, #fl-settings, #fl-sample, #fl-article-file"));
    }, true);
  }
  window.addEventListener("fastllm-chosen", ({ detail: [article, lanes, ...settings] }) => {
    const sample = Object.entries(window.fastllmSamples).find(([, text]) => text === article)?.[0] ?? "";
    chosen = { sample, article, lanes, settings };
    stale();
    if (touched) remember();
  });
}

watch("value", () => {
  again = null;
  schedule();
  if (props.value.includes('{"row":"end"')) running(false);
});

if (again || props.value) update();
else ui.about.textContent = words.nothing;
if (again) setTimeout(() => { if (again) props.value = again; }); // for the plots of it
