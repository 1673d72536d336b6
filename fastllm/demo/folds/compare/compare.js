/* The comparison over several articles, drawn from the rows of compare.py as they come. Like the
   live view it is the `js_on_load` of a gr.HTML whose value is a growing NDJSON text; `words` stands
   before this file. Text enters the page through textContent alone. What one takes home is made here. */

const root = element.querySelector(".fl-compare");

const ui = {
  status: make("p", "fl-compare-status", words.before, { role: "status" }),
  progress: make("progress", "fl-progress", undefined, { "aria-label": words.progress, value: "0" }),
  said: make("div", "fl-said", undefined, { role: "status" }),
  tables: make("div", "fl-tables"),
  keep: make("div", "fl-keep-row"),
};
ui.keep.append(
  button("fl-take", words.save_csv, () => download("fastllm-comparison.csv", "text/csv", csv())),
  button("fl-take", words.save_json, () => download("fastllm-comparison.json", "application/json", json())),
  make("span", "fl-soft", words.save_note),
);
root.append(ui.status, ui.progress, ui.said, ui.tables, ui.keep);
reveal(ui.progress, false);
reveal(ui.keep, false);

/* What is known: the first row, the rows of the articles, the last one. */

let known = null;
let each = null;

function take(row) {
  if (row.row === "start") {
    known = { start: row, articles: [], end: null };
    each = null;
    ui.said.replaceChildren();
    ui.tables.replaceChildren();
    ui.progress.max = row.articles.length;
    ui.progress.value = 0;
    reveal(ui.progress, true);
    reveal(ui.keep, false);
    ui.status.textContent = words.waiting;
  } else if (row.row === "begun") {
    const { articles } = known.start;
    const left = known.articles.at(-1)?.left;
    const place = say(words.running, row.article + 1, articles.length, articles[row.article]);
    ui.status.textContent = left ? `${place} (${say(words.left, Math.ceil(left))})` : place;
  } else if (row.row === "article") {
    known.articles.push(row);
    ui.progress.value = row.article + 1;
  } else if (row.row === "left_out") ui.progress.value = row.article + 1;
  else if (row.row === "end") finish(row);
}

function finish(row) {
  known.end = row;
  reveal(ui.progress, false);
  const last = known.articles.at(-1);
  ui.status.textContent = last ? say(words.done, row.articles, known.start.articles.length, last.table.hardware) : "";
  const [state, sentence] = row.same;
  const same = make("p", "fl-same", (state === "same" ? "✓ " : "") + sentence);
  same.dataset.state = state;
  ui.said.replaceChildren(
    ...row.said.map((text) => make("p", "fl-verdict", text)), same,
    ...row.notices.map((text) => make("p", "fl-notice", text)),
  );
}

/* The tables: drawn anew with each article, from its row alone. */

function draw() {
  const last = known.articles.at(-1);
  if (!last) return;
  const { start } = known;
  const found = last.table;
  const sure = found.articles >= start.fewest;
  const titles = new Map(start.lanes.map(({ key, title }) => [key, title]));
  const lossy = start.lossy ? [make("span", "fl-lossy", words.lossy)] : [];
  const title = found.articles === 1 ? words.title_one : say(words.title, found.articles);
  const parts = [
    heading(title, ...lossy),
    sheet(
      title,
      [words.lane, words.calls, words.tau, words.accepted, words.alpha, words.seconds, words.speed_up],
      found.lanes.map((lane) => [
        titles.get(lane.key),
        cell(lane.calls, (n) => n.toFixed(1), sure),
        cell(lane.tau, (n) => n.toFixed(2), sure),
        cell(lane.accepted, percent, sure),
        cell(lane.alpha, (n) => n.toFixed(2), sure),
        cell(lane.seconds, (n) => n.toFixed(n < 10 ? 2 : 1), sure),
        cell(lane.speed_up, (n) => say(words.times, n.toFixed(2)), sure),
      ]),
    ),
    note(sure ? `${words.lanes_note} ${words.intervals_note}` : words.lanes_note),
  ];
  if (!sure) parts.push(warn(say(words.too_few, start.fewest)));
  else if (found.articles < start.few) parts.push(warn(say(words.few, start.few)));
  if (found.pairs.length) {
    const ratio = (n) => say(words.times, n.toFixed(2));
    parts.push(
      heading(words.pairs),
      sheet(
        words.pairs,
        [words.family, words.ratio, words.fewer, words.tau_change, words.accepted_change, words.alpha_change, words.seconds_ratio],
        found.pairs.map((pair) => [
          pair.title,
          cell(pair.calls_ratio, ratio, sure),
          say(words.fewer_of, pair.fewer, found.articles),
          cell(pair.tau, (n) => signed(n, 2), sure),
          cell(pair.accepted, (n) => signed(100 * n, 0), sure, words.points),
          cell(pair.alpha, (n) => signed(n, 2), sure),
          cell(pair.seconds_ratio, ratio, sure),
        ]),
      ),
      note(words.pairs_note),
    );
  } else parts.push(note(words.no_pairs));
  const open = each?.open ?? false;
  each = make("details", "fl-recipe");
  each.open = open;
  each.append(
    make("summary", "", words.each),
    sheet(
      words.each,
      [words.article, ...start.lanes.map((lane) => lane.title)],
      known.articles.map((row) => [
        start.articles[row.article] + (row.cut ? ` (${words.cut})` : ""),
        ...row.lanes.map((lane) => String(lane.calls)),
      ]),
    ),
  );
  parts.push(each);
  ui.tables.replaceChildren(...parts);
}

const signed = (value, digits) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(digits);
const note = (text) => make("p", "fl-soft fl-compare-note", text);
const warn = (text) => make("p", "fl-notice fl-compare-note", text);

function heading(text, ...more) {
  const made = make("h3", "fl-compare-title", text);
  made.append(" ", ...more);
  return made;
}

/* An estimate: the value, and its interval below where there is one. */
function cell(estimate, shown, sure, unit = "{}") {
  if (!estimate) return make("td", "fl-soft", "–");
  const made = make("td", "", say(unit, shown(estimate.value)));
  const range = [shown(estimate.low), shown(estimate.high)];
  if (sure && range.some((end) => end !== shown(estimate.value))) made.append(make("span", "fl-interval fl-soft", ` [${range.join(", ")}]`));
  return made;
}

const sheet = (label, header, rows) => scrolling(label, table("fl-facts fl-estimates", header, rows));

/* Take home. */

/* Quoted, and nothing that a spreadsheet would take for a formula. */
const field = (value) => {
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

function csv() {
  const names = ["calls", "tokens", "drafted", "accepted", "alpha", "seconds", "same_text"];
  const lines = [["article", "lane", ...names]];
  for (const row of known.articles) {
    const title = known.start.articles[row.article];
    for (const lane of row.lanes) lines.push([title, lane.key, ...names.map((name) => lane[name])]);
  }
  return lines.map((line) => line.map(field).join(",") + "\r\n").join("");
}

function json() {
  const { articles, lanes, settings, rule, lossy } = known.start;
  const { table } = known.articles.at(-1);
  const rows = known.articles.map((row) => ({ title: articles[row.article], cut: row.cut, lanes: row.lanes }));
  const { ended, same } = known.end ?? { ended: "stopped", same: null };
  return JSON.stringify({ settings, rule, lossy, lanes, asked: articles.length, ended, same, table, articles: rows }, null, 1);
}

/* Rows as they come, and the buttons outside. */

let stopping = false;
let failed = false; // rows may come after it, which were on their way

function advance() {
  draw();
  if (known.end) settle();
  else if (stopping) ui.status.textContent = words.stopping;
}

function settle() {
  document.body.classList.remove("fl-comparing");
  stopping = false;
  reveal(ui.keep, Boolean(known?.articles.length));
}

const listen = (what, act) => window.addEventListener(`fastllm-compare-${what}`, act);
const running = () => document.body.classList.contains("fl-comparing");
listen("go", () => {
  failed = false;
  document.body.classList.add("fl-comparing");
  ui.status.textContent = words.waiting;
});
listen("stop", () => {
  if (!running()) return;
  stopping = true;
  ui.status.textContent = words.stopping;
});
listen("cleared", () => {
  if (running()) return;
  known = null;
  reveal(ui.progress, false);
  reveal(ui.keep, false);
  for (const part of [ui.said, ui.tables]) part.replaceChildren();
  ui.status.textContent = words.before;
});
listen("failed", () => {
  // Gradio calls what was stopped a failure too, once the server has let go of it.
  if (!running()) return;
  reveal(ui.progress, false);
  ui.status.textContent = stopping
    ? say(words.stopped, known?.articles.length ?? 0, known?.start.articles.length ?? 0)
    : words.failed;
  failed = true;
  settle();
});
follow(take, advance, () => failed);
