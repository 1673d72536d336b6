/* One number, explained: what the speed of a lane is made of, and a calculator of it. Drawn from the JSON of
   costs.py; all of it lives in the browser. The `js_on_load` of a gr.HTML; `words` and `most`, the longest
   draft of this page, stand before this file. Writes text only through textContent. */

const board = element.querySelector(".fl-explain");
const WIDTH = 620, HEIGHT = 250, LEFT = 46, RIGHT = 18, TOP = 14, BOTTOM = 40;

/* The lanes of the race, the one that is looked at, and what the sliders say of it. */

let lanes = [];
let lane = null;
const set = { alpha: 0, gamma: 1, c: 0 };

const tau = (alpha, gamma) => [...Array(gamma + 1).keys()].reduce((sum, power) => sum + alpha ** power, 0);

/* As `Costs.predicted`. */
function speed(gamma) {
  const own = lane.reading + (lane.tokens * (gamma * set.c + lane.v)) / tau(set.alpha, gamma);
  return (lane.reading_alone + lane.tokens) / own;
}

function slider(name, label, low, high, step) {
  const row = make("label", "fl-slider");
  const value = make("output", "", "");
  const input = make("input", "fl-position", undefined, { type: "range", min: low, max: high, step });
  input.addEventListener("input", () => {
    set[name] = Number(input.value);
    update();
  });
  row.append(make("span", "", label), input, value);
  return { row, input, value };
}

const ui = {
  lane: make("select", "", undefined),
  said: make("p", "fl-verdict", "", { role: "status" }),
  unit: make("p", "fl-soft", ""),
  formula: make("p", "fl-soft", words.formula),
  result: make("p", "fl-explain-result", "", { role: "status" }),
  chart: make("div", "fl-explain-chart"),
  key: make("p", "fl-key"),
  alpha: slider("alpha", words.alpha, 0, 1, 0.01),
  gamma: slider("gamma", words.gamma, 1, most, 1),
  c: slider("c", words.cost, 0, 1, 0.01),
};
const title = make("h3", "fl-plot-title", words.number);
const which = make("label", "fl-select");
which.append(make("span", "", words.lane), ui.lane);
const sliders = make("div", "fl-sliders");
sliders.append(which, ui.alpha.row, ui.c.row, ui.gamma.row, button("fl-take", words.reset, () => look(lane)));
const side = make("div", "");
side.append(ui.result, ui.chart, ui.key);
const grid = make("div", "fl-calculator");
grid.append(sliders, side);
board.append(title, ui.said, ui.unit, ui.formula, grid);
ui.lane.addEventListener("change", () => look(lanes.find((each) => each.key === ui.lane.value)));

function look(chosen) {
  lane = chosen;
  Object.assign(set, { alpha: lane.alpha, gamma: Math.min(most, lane.gamma), c: lane.c });
  ui.lane.value = lane.key;
  board.className = `fl-explain fl-c${lane.hue}`;
  ui.said.textContent = `${lane.title}: ${lane.said}`;
  ui.unit.textContent = lane.unit;
  ui.c.input.max = String(Math.max(1, Math.ceil(lane.c * 2)));
  update();
}

function update() {
  for (const name of ["alpha", "gamma", "c"]) {
    ui[name].input.value = String(set[name]);
    ui[name].value.textContent = name === "gamma" ? String(set.gamma) : set[name].toFixed(2);
  }
  const speeds = [...Array(most).keys()].map((place) => speed(place + 1));
  const best = Math.max(...speeds);
  ui.result.textContent =
    say(words.predicted, set.gamma, speed(set.gamma).toFixed(2)) +
    (best < 1 ? words.never : say(words.best, speeds.indexOf(best) + 1, best.toFixed(2)));
  draw(speeds);
}

/* What *Measure it* has found for this lane at the temperature of its race: [gamma, times as fast] each. */
function swept() {
  const found = document.querySelector("#fl-sweep [data-measured]")?.dataset;
  const runs = found?.key === lane.key ? JSON.parse(found.measured) : [];
  return runs.filter(([temperature]) => temperature === lane.temperature).map(([, ...point]) => point);
}

function draw(speeds) {
  const points = swept();
  const highest = Math.max(...speeds, lane.measured, ...points.map(([, value]) => value));
  const high = Math.max(1, Math.ceil(highest * 1.05 * 2) / 2);
  const across = (gamma) => LEFT + ((WIDTH - LEFT - RIGHT) * (gamma - 1)) / Math.max(1, most - 1);
  const up = (value) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * value) / high;
  const told = speeds.map((value, place) => `${place + 1}: ${value.toFixed(1)}`).join(", ");
  const chart = shape("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "fl-curve",
    "aria-label": say(words.curve, told, lane.measured.toFixed(2), lane.gamma),
  });
  for (let value = 0; value <= high; value += high > 4 ? 1 : 0.5) {
    chart.append(shape("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: up(value), y2: up(value), class: value === 1 ? "fl-level" : "fl-grid" }));
    chart.append(shape("text", { x: LEFT - 6, y: up(value) + 4, "text-anchor": "end" }, say(words.times, value)));
  }
  chart.append(shape("text", { x: WIDTH - RIGHT, y: up(1) - 5, "text-anchor": "end" }, words.alone_line));
  for (let gamma = 1; gamma <= most; gamma += 1) {
    chart.append(shape("text", { x: across(gamma), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, String(gamma)));
  }
  chart.append(shape("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, words.axis));
  const line = (each) => each.map(([gamma, value], place) => `${place ? "L" : "M"}${across(gamma).toFixed(1)} ${up(value).toFixed(1)}`).join("");
  const x = across(set.gamma), y = up(speed(set.gamma));
  chart.append(
    shape("path", { d: line(speeds.map((value, place) => [place + 1, value])), class: "fl-line fl-line-lane" }),
    shape("path", { d: line(points), class: "fl-line fl-measured" }),
    shape("line", { x1: x, x2: x, y1: HEIGHT - BOTTOM, y2: y, class: "fl-line fl-line-lane fl-line-set" }),
    shape("circle", { cx: x, cy: y, r: 4, class: "fl-dot fl-line-lane" }),
    shape("rect", { x: across(lane.gamma) - 5, y: up(lane.measured) - 5, width: 10, height: 10, class: "fl-race-dot" }),
  );
  ui.chart.replaceChildren(chart);
  ui.key.replaceChildren(
    keyEntry("fl-line fl-line-lane", words.key_predicted),
    ...(points.length ? [keyEntry("fl-line fl-measured", say(words.key_measured, points.map(([gamma, value]) => `${gamma}: ${value.toFixed(1)}`).join(", ")))] : []),
    keyEntry("fl-race-dot", say(words.key_race, lane.measured.toFixed(2))),
  );
}

function read() {
  lanes = props.value ? JSON.parse(props.value) : [];
  for (const part of [grid, ui.formula]) reveal(part, lanes.length > 0);
  ui.lane.replaceChildren(...lanes.map((each) => make("option", "", each.title, { value: each.key })));
  if (!lanes.length) {
    ui.said.textContent = props.value ? words.none : "";
    ui.unit.textContent = "";
    return;
  }
  // What is looked at stays; at first the lane with the fewest calls.
  const most_saved = lanes.reduce((one, other) => (other.fewer > one.fewer ? other : one));
  look(lanes.find((each) => each.key === lane?.key) ?? most_saved);
}

window.addEventListener("fastllm-swept", () => lane && update());
watch("value", read);
read();
