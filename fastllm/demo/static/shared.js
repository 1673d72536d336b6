/* What the scripts of the page have in common: `context.scripted` and `race.script` put it before each of
   them. Text enters the page through textContent alone. */

const say = (sentence, ...values) => values.reduce((text, value) => text.replace("{}", () => value), sentence);
const percent = (p) => (p > 0.995 && p < 1 ? ">99 %" : p > 0 && p < 0.01 ? "<1 %" : `${Math.round(100 * p)} %`);
const reveal = (node, shown) => node.classList.toggle("fl-hidden", !shown);

function dressed(node, className, text, attributes) {
  if (className) node.setAttribute("class", className);
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  return node;
}

const make = (tag, className, text, attributes) => dressed(document.createElement(tag), className, text, attributes);
const shape = (tag, attributes, text) =>
  dressed(document.createElementNS("http://www.w3.org/2000/svg", tag), "", text, attributes);

function button(className, text, act) {
  const node = make("button", className, text, { type: "button" });
  node.addEventListener("click", act);
  return node;
}

/* A table: `header` names the columns, or is null; a row is [label, ...cells], a cell a text or a node. */
function table(className, header, rows) {
  const made = make("table", className);
  const line = (part, cells) => part.insertRow().append(...cells);
  const title = (text) => (text ? make("th", "", text, { scope: "col" }) : make("td"));
  if (header) line(made.createTHead(), header.map(title));
  const body = made.createTBody();
  const cell = (entry) => (entry instanceof Node ? entry : make("td", "", entry));
  for (const [label, ...cells] of rows) line(body, [make("th", "", label, { scope: "row" }), ...cells.map(cell)]);
  return made;
}

/* What may be wider than the page. */
function scrolling(label, node) {
  const box = make("div", "fl-scroll", undefined, { tabindex: "0", role: "group", "aria-label": label });
  box.append(node);
  return box;
}

/* One of a model's first choices: a bar, the word, its probability. */
function choice(tag, text, p, share, chosen) {
  const row = make(tag, chosen ? "fl-choice fl-this" : "fl-choice");
  const bar = make("span", "fl-choice-bar", undefined, { "aria-hidden": "true" });
  bar.style.width = `${100 * share}%`;
  row.append(bar, make("span", "fl-choice-word", text.trim() || "·"), make("span", "fl-choice-p", percent(p)));
  return row;
}

/* An entry of the key to a chart: a piece of its line, and what it stands for. */
function keyEntry(kind, text) {
  const made = make("span", "fl-key-entry");
  const sample = shape("svg", { viewBox: "0 0 28 8", class: "fl-sample", "aria-hidden": "true" });
  sample.append(shape("path", { d: "M0 4L28 4", class: kind }));
  made.append(sample, text);
  return made;
}

function download(name, kind, text) {
  const link = make("a", "", undefined, { download: name });
  link.href = URL.createObjectURL(new Blob([text], { type: kind }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/* Rows as they come: `take` is given each of them, once, and `draw` is called after those that came
   together. The value is a text that grows row by row; a text with another first row is another run. Rows
   that come when the run has `ended` are dropped. */
function follow(take, draw, ended = () => false) {
  let head = "";
  let read = 0;
  const update = () => {
    const value = typeof props.value === "string" ? props.value : "";
    const whole = value.lastIndexOf("\n") + 1;
    if (!whole) return;
    const first = value.slice(0, value.indexOf("\n"));
    if (first !== head) {
      head = first;
      read = 0;
    }
    if (whole <= read) return;
    const fresh = value.slice(read, whole);
    read = whole;
    if (ended()) return;
    for (const text of fresh.split("\n")) if (text) take(JSON.parse(text));
    draw();
  };
  watch("value", update);
  update();
}
