/* What the scripts of the page have in common: `stage.scripted` and `build.script` put it before each that
   has something to say. Text enters the page through textContent alone. */

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

function download(name, kind, text) {
  const link = make("a", "", undefined, { download: name });
  link.href = URL.createObjectURL(new Blob([text], { type: kind }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/* Rows as they come: `take` is given each of them, once, and `draw` is called behind those that came
   together. The value is a text that grows row by row; one with another first row is another run. */
function follow(take, draw) {
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
    for (const text of value.slice(read, whole).split("\n")) if (text) take(JSON.parse(text));
    read = whole;
    draw();
  };
  watch("value", update);
  update();
}
