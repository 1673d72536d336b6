/* How the drafters were trained: two small curves and a table of each family, drawn from the JSON of
   trained.py. Like the live view it is the `js_on_load` of a gr.HTML, and writes text only
   through textContent. */

const page = element.querySelector(".fl-cards");
const WIDTH = 340, HEIGHT = 150, LEFT = 38, RIGHT = 12, TOP = 10, BOTTOM = 24;

const kindOf = (key) => /-(before|after)$/.exec(key)?.[1] ?? "other";

/* From 0 on, so that a small gain looks small: up to 1 for a chance, else to the next whole number. */
function curve(title, lines, family) {
  const points = lines.flat();
  const most = Math.max(...points.map(([step]) => step));
  const low = 0, high = Math.max(1, Math.ceil(Math.max(...points.map(([, value]) => value))));
  const across = (step) => LEFT + ((WIDTH - LEFT - RIGHT) * step) / most;
  const up = (value) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * (value - low)) / (high - low || 1);
  const ends = lines.map((line, index) => (line.length ? `${family.lanes[index]}: ${line.at(-1)[1]}` : "")).filter(Boolean);
  const chart = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "fl-curve", "aria-label": `${title}. ${ends.join(", ")}` });
  for (const value of high === 1 ? [0, 0.5, 1] : [...Array(high + 1).keys()]) {
    chart.append(shape("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: up(value), y2: up(value), class: "fl-grid" }));
    chart.append(shape("text", { x: LEFT - 5, y: up(value) + 4, "text-anchor": "end" }, String(value)));
  }
  chart.append(shape("text", { x: LEFT, y: HEIGHT - 7 }, "0"));
  chart.append(shape("text", { x: WIDTH - RIGHT, y: HEIGHT - 7, "text-anchor": "end" }, `${most} ${words.updates}`));
  lines.forEach((line, index) => {
    if (!line.length) return;
    const path = line.map(([step, value], each) => `${each ? "L" : "M"}${across(step).toFixed(1)} ${up(value).toFixed(1)}`).join("");
    const kind = kindOf(family.keys[index]);
    const dash = kind === "other" && index ? { style: `stroke-dasharray: ${2 + 3 * index} 3` } : {};
    chart.append(shape("path", { d: path, class: `fl-line fl-line-${kind}`, ...dash }));
    const [step, value] = line.at(-1);
    chart.append(shape("circle", { cx: across(step), cy: up(value), r: 3.5, class: `fl-dot fl-line-${kind}` }));
  });
  const figure = make("figure", "fl-figure");
  figure.append(make("figcaption", "", title), chart);
  return figure;
}

function draw() {
  if (!props.value) return;
  const { target, families } = JSON.parse(props.value);
  const parts = [make("p", "", words.intro)];
  for (const family of families) {
    const part = make("section", "fl-family", undefined, { "aria-label": family.title });
    part.append(make("h3", "", family.title));
    const curves = make("div", "fl-curves");
    for (const [name, lines] of Object.entries(family.curves)) curves.append(curve(words[name], lines, family));
    if (curves.childElementCount) {
      const key = make("p", "fl-key");
      family.keys.forEach((name, index) => {
        key.append(keyEntry(`fl-line fl-line-${kindOf(name)}`, family.lanes[index]));
      });
      part.append(key, curves);
    }
    const recipe = make("details", "fl-recipe");
    const facts = table("fl-facts", ["", ...family.lanes], family.facts);
    recipe.append(make("summary", "", words.recipe), scrolling(`${family.title}: ${words.recipe}`, facts));
    part.append(recipe);
    parts.push(part);
  }
  const part = make("section", "fl-family", undefined, { "aria-label": words.target });
  part.append(make("h3", "", words.target), table("fl-facts", null, target));
  page.replaceChildren(...parts, part);
}

watch("value", draw);
draw();
