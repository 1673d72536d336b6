/* How the drafters were trained: two small curves and a table of each family, drawn from the JSON of
   trained.py. Like the live view it is the `js_on_load` of a gr.HTML, and writes text only
   through textContent. */

const page = element.querySelector(".fl-cards");
const WIDTH = 340, HEIGHT = 150, LEFT = 38, RIGHT = 12, TOP = 10, BOTTOM = 24;

function curve(title, lines, family) {
  const points = lines.flat();
  const most = Math.max(...points.map(([step]) => step));
  const values = points.map(([, value]) => value);
  const low = Math.min(...values), high = Math.max(...values);
  const across = (step) => LEFT + ((WIDTH - LEFT - RIGHT) * step) / most;
  const up = (value) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * (value - low)) / (high - low || 1);
  const ends = lines.map((line, index) => (line.length ? `${family.lanes[index]}: ${line.at(-1)[1]}` : "")).filter(Boolean);
  const chart = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "fl-curve", "aria-label": `${title}. ${ends.join(", ")}` });
  for (const value of [low, high]) {
    chart.append(shape("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: up(value), y2: up(value), class: "fl-grid" }));
    chart.append(shape("text", { x: LEFT - 5, y: up(value) + 4, "text-anchor": "end" }, value.toFixed(2)));
  }
  chart.append(shape("text", { x: LEFT, y: HEIGHT - 7 }, "0"));
  chart.append(shape("text", { x: WIDTH - RIGHT, y: HEIGHT - 7, "text-anchor": "end" }, `${most} ${words.updates}`));
  lines.forEach((line, index) => {
    if (!line.length) return;
    const path = line.map(([step, value], each) => `${each ? "L" : "M"}${across(step).toFixed(1)} ${up(value).toFixed(1)}`).join("");
    const kind = /-(before|after)$/.exec(family.keys[index])?.[1] ?? "other";
    chart.append(shape("path", { d: path, class: `fl-line fl-line-${kind}` }));
    const [step, value] = line.at(-1);
    chart.append(shape("circle", { cx: across(step), cy: up(value), r: 3.5, class: `fl-dot fl-line-${kind}` }));
  });
  const figure = make("figure", "fl-figure");
  figure.append(make("figcaption", "", title), chart);
  return figure;
}

function table(header, rows) {
  const made = make("table", "fl-facts");
  if (header) {
    const line = make("tr");
    line.append(make("td"), ...header.map((title) => make("th", "", title, { scope: "col" })));
    const top = make("thead");
    top.append(line);
    made.append(top);
  }
  const body = make("tbody");
  for (const [label, ...values] of rows) {
    const line = make("tr");
    line.append(make("th", "", label, { scope: "row" }), ...values.map((value) => make("td", "", value)));
    body.append(line);
  }
  made.append(body);
  return made;
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
        const kind = /-(before|after)$/.exec(name)?.[1] ?? "other";
        const entry = make("span", "fl-key-entry");
        const sample = shape("svg", { viewBox: "0 0 28 8", class: "fl-sample", "aria-hidden": "true" });
        sample.append(shape("path", { d: "M0 4L28 4", class: `fl-line fl-line-${kind}` }));
        entry.append(sample, family.lanes[index]);
        key.append(entry);
      });
      part.append(key, curves);
    }
    const recipe = make("details", "fl-recipe");
    const scroll = make("div", "fl-scroll", undefined, { tabindex: "0", role: "group", "aria-label": `${family.title}: ${words.recipe}` });
    scroll.append(table(family.lanes, family.facts));
    recipe.append(make("summary", "", words.recipe), scroll);
    part.append(recipe);
    parts.push(part);
  }
  const part = make("section", "fl-family", undefined, { "aria-label": words.target });
  part.append(make("h3", "", words.target), table(null, target));
  page.replaceChildren(...parts, part);
}

watch("value", draw);
draw();
