/* The live view, last part: rows as they come, and the buttons outside. */

const PAUSE_BEFORE_REPLAY = 1200;

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
  offer();
}

/* A row as it is shown. The last one holds the traces, which stay as they were made. */
const plain = (text) => (text.startsWith('{"row":"end"') ? text : text.replace(TURNS, ""));

let head = "";
let read = 0;
let scheduled = false;
let called_off = false;

function update() {
  scheduled = false;
  const value = typeof props.value === "string" ? props.value : "";
  const whole = value.lastIndexOf("\n") + 1;
  if (!whole) return;
  const first = value.slice(0, value.indexOf("\n"));
  const fresh = first !== head;
  if (called_off) return; // rows that were on their way when the race was stopped
  if (fresh) {
    head = first;
    read = 0;
    play(false);
  } else if (whole <= read) return;
  const ended = race && !fresh && race.end;
  for (const text of value.slice(read, whole).split("\n")) if (text) take(JSON.parse(plain(text)));
  read = whole;
  describe();
  if (race.halted) return show(total());
  if (!race.live) {
    suit();
    if (restore()) return;
    if (asked() === false) note(address.get("sample") ? words.link_waiting : words.link_without);
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
  if (restore()) return;
  if (calm || longestClock() / Number(ui.speed.value) > LONGEST_REPLAY) return;
  waiting = setTimeout(restart, PAUSE_BEFORE_REPLAY);
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

/* Gradio knows the place in the queue, and shows it in words that are hidden here: "queue: 2/3 | 1.2s". */
function wait() {
  if (!root.classList.contains("fl-waiting")) return;
  const told = document.querySelector('#fl-view [data-testid="status-tracker"]')?.textContent ?? "";
  const [, place] = /queue: (\d+)/.exec(told) ?? [];
  ui.about.textContent = ` ${place ? say(words.place, place) : words.waiting_for}`;
  setTimeout(wait, 100);
}

window.addEventListener("fastllm-go", () => {
  running(true);
  play(false);
  ui.badge.textContent = words.waiting;
  ui.badge.className = "fl-badge fl-live";
  stopping = called_off = false;
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
    show(total());
  }
  if (race) describe();
  else {
    ui.badge.textContent = "";
    ui.badge.className = "fl-badge";
    ui.about.textContent = stopping ? words.stopping : words.nothing;
  }
}
watch("value", () => {
  schedule();
  if (props.value.includes('{"row":"end"')) running(false);
});

if (props.value) update();
else ui.about.textContent = words.nothing;
