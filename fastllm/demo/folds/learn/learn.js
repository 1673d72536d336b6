/* A drafter that learns in view: two curves, drawn from the rows of learn.py as they come. Like
   the live view it is the `js_on_load` of a gr.HTML whose value is a growing NDJSON text; `words` stands
   before this file. Text enters the page through textContent alone. */

const root = element.querySelector(".fl-learn");
const WIDTH = 380, HEIGHT = 190, LEFT = 32, RIGHT = 46, TOP = 10, BOTTOM = 24;
const ALPHA = 0; // the first of a pair of numbers, the other being tau
const TICKS = [0, 0.25, 0.5, 0.75, 1]; // the whole of alpha, so that what is flat looks flat

const count = (number) => number.toLocaleString("en-US");

const ui = {
  status: make("p", "fl-learn-status", words.before, { role: "status" }),
  progress: make("progress", "fl-progress", undefined, { "aria-label": words.progress, value: "0" }),
  numbers: make("p", "fl-learn-numbers"),
  curves: make("div", "fl-learn-curves"),
  said: make("div", "fl-learn-said", undefined, { role: "status" }),
};
root.append(ui.status, ui.progress, ui.numbers, ui.curves, ui.said);
reveal(ui.progress, false);

/* What is known: the first row, where it stands, what the shipped one has, the last row. */

let known = null;

function take(row) {
  if (row.row === "lesson") {
    known = { lesson: row, others: 0, moments: [], shipped: null, taught: null };
    ui.said.replaceChildren();
    ui.curves.replaceChildren();
    ui.numbers.textContent = "";
    ui.progress.max = row.updates;
    ui.progress.value = 0;
    reveal(ui.progress, true);
    ui.status.textContent = say(words.writing, 0, row.texts);
  } else if (row.row === "writing") {
    ui.status.textContent = say(words.writing, row.done, known.lesson.texts);
  } else if (row.row === "written") {
    known.others = row.others;
  } else if (row.row === "shipped") {
    known.shipped = row;
  } else if (row.row === "moment") {
    if (!known.moments.length) ui.status.textContent = words.learning;
    known.moments.push(row);
  } else if (row.row === "taught") {
    known.taught = row;
    reveal(ui.progress, false);
    ui.status.textContent = row.race ? words.raced : words.taught;
    ui.said.replaceChildren(...row.said.map((text) => make("p", "", text)));
  }
}

function draw() {
  const { lesson, moments, others } = known;
  const last = moments.at(-1);
  if (!last) return;
  ui.progress.value = Math.min(last.updates, lesson.updates);
  ui.numbers.textContent = [
    say(words.clock, last.seconds.toFixed(0)),
    say(words.counts, count(last.updates), count(last.tokens)),
    ...(last.loss === null ? [] : [say(words.loss, last.loss.toFixed(2))]),
  ].join(" · ");
  ui.curves.replaceChildren(
    curve("own", lesson.article ? `${words.own}: ${lesson.article}` : words.own, others ? say(words.own_other, others) : words.own_note),
    curve("held_out", say(words.held_out, lesson.held_out.length), say(words.held_out_note, lesson.held_out.join(", "))),
  );
}

function curve(name, title, reading) {
  const { lesson, moments, shipped } = known;
  const first = moments[0], last = moments.at(-1);
  const across = (updates) => LEFT + ((WIDTH - LEFT - RIGHT) * Math.min(updates, lesson.updates)) / lesson.updates;
  const up = (alpha) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * alpha;
  const reference = shipped ? shipped[name][ALPHA] : null;
  let label = say(words.curve, title, first[name][ALPHA].toFixed(2), last[name][ALPHA].toFixed(2), last.updates);
  if (reference !== null) label += say(words.curve_shipped, shipped.title, reference.toFixed(2));
  const chart = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "fl-curve", "aria-label": label });
  for (const tick of TICKS) {
    chart.append(shape("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: up(tick), y2: up(tick), class: "fl-grid" }));
    if (tick * 2 === Math.round(tick * 2)) chart.append(shape("text", { x: LEFT - 5, y: up(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  chart.append(shape("text", { x: LEFT, y: HEIGHT - 7 }, "0"));
  chart.append(shape("text", { x: WIDTH - RIGHT, y: HEIGHT - 7, "text-anchor": "end" }, say(words.axis, lesson.updates)));
  if (reference !== null) {
    const ends = { x1: LEFT, x2: WIDTH - RIGHT, y1: up(reference), y2: up(reference) };
    chart.append(shape("line", { ...ends, class: "fl-line fl-learn-shipped" }));
  }
  const path = moments
    .map((moment, each) => `${each ? "L" : "M"}${across(moment.updates).toFixed(1)} ${up(moment[name][ALPHA]).toFixed(1)}`)
    .join("");
  chart.append(shape("path", { d: path, class: "fl-line fl-learn-yours" }));
  chart.append(shape("circle", { cx: across(last.updates), cy: up(last[name][ALPHA]), r: 4, class: "fl-dot fl-learn-yours" }));
  // The number moves with the dot, and stays clear of the right edge.
  chart.append(
    shape("text", { x: across(last.updates) + 8, y: up(last[name][ALPHA]) + (last[name][ALPHA] > 0.92 ? 12 : 4), class: "fl-learn-now" }, last[name][ALPHA].toFixed(2)),
  );
  const figure = make("figure", "fl-learn-figure");
  const caption = make("figcaption");
  const key = make("p", "fl-key");
  key.append(keyEntry("fl-line fl-learn-yours", `${words.yours}, ${say(words.from, first[name][ALPHA].toFixed(2))}`));
  if (reference !== null) key.append(keyEntry("fl-line fl-learn-shipped", `${shipped.title} ${reference.toFixed(2)}`));
  caption.append(make("p", "fl-learn-title", title), make("p", "fl-soft", reading));
  figure.append(caption, chart, key);
  return figure;
}

/* Rows as they come. When the training is over the live view is told that its race begins. */

let phase = ""; // "", "training", or "racing"
let stopping = false;
let failed = false; // rows may come after it, which were on their way

function enter(next) {
  phase = next;
  stopping = stopping && next !== "";
  document.body.classList.toggle("fl-learning", next !== "");
}

function advance() {
  draw();
  if (stopping) ui.status.textContent = words.stopping;
  else if (known.taught && phase === "training") {
    if (!known.taught.race) return enter("");
    enter("racing");
    window.dispatchEvent(new Event("fastllm-go"));
    document.getElementById("fl-tab-race-button")?.click(); // it is to be seen
  }
}

const listen = (what, act) => window.addEventListener(`fastllm-${what}`, act);
listen("learn-go", () => {
  failed = false;
  enter("training");
  ui.status.textContent = words.waiting;
});
listen("learn-stop", () => {
  if (!phase || stopping) return;
  stopping = true;
  ui.status.textContent = words.stopping;
  if (phase === "racing") window.dispatchEvent(new Event("fastllm-stop"));
});
listen("learn-failed", () => {
  // Gradio calls what was stopped a failure too, once the server has let go of it.
  if (!phase) return;
  const racing = phase === "racing";
  ui.status.textContent = !stopping ? words.failed : racing ? words.stopped_race : words.stopped;
  failed = true;
  enter("");
  reveal(ui.progress, false);
  if (racing) window.dispatchEvent(new Event("fastllm-failed"));
});
listen("learn-done", () => {
  if (stopping) ui.status.textContent = known.taught?.race ? words.raced : words.taught;
  enter("");
});
// The other Stop, beside the live view, stops this race as well.
listen("stop", () => { if (phase === "racing" && !stopping) document.querySelector("#fl-learn-stop")?.click(); });
follow(take, advance, () => failed);
