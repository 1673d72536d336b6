/* The live view, third part: what is known of a word, and of the call it came from.

   The pointer and the keyboard show a word in passing; a click, a tap or Enter pins it, with its call. */

let pinned = null;
let described = null;

const figure = (p) => (p === 0 || p === 1 ? String(p) : p < 0.0001 ? "<0.0001" : p.toFixed(p < 0.01 || p > 0.995 ? 4 : 2));

/* The drawn number on a line from 0 to 1, whose part below the threshold is filled. */
function testLine(test) {
  const line = make("span", `fl-test fl-${test.ok ? "passed" : "failed"}`, undefined, { "aria-hidden": "true" });
  const below = make("span", "fl-below");
  below.style.width = `${100 * test.h}%`;
  const drawn = make("span", "fl-drawn");
  drawn.style.left = `${100 * test.u}%`;
  line.append(below, drawn);
  return line;
}

function choices(label, best, word) {
  const column = make("div", "fl-choices");
  column.append(make("p", "fl-choices-of", label));
  column.append(...best.map(([text, p]) => choice("div", text, p, p, text === word)));
  return column;
}

/* Why a word stands, or does not. */
function reason(entry, round) {
  const { test } = entry;
  const { rule, greedy } = race.start;
  if (entry.s === "plain") return words.why_plain;
  if (entry.s === "correction") return words.why_correction;
  if (entry.s === "bonus") return words.why_bonus;
  if (!test) return words.dropped;
  if (greedy) return entry.s === "accepted" ? words.why_greedy : words.why_not_greedy;
  if (rule === "block") {
    if (entry.s === "accepted") return test.ok ? words.why_block : words.why_block_later;
    return words.why_not_block;
  }
  const lenient = race.start.lossy ? ` ${words.why_lenient}` : "";
  return (test.ok ? words.why_token : words.why_not_token) + lenient;
}

function numbers(entry) {
  const { test } = entry;
  const rows = [];
  if (test) {
    const [p, q] = test.raw ?? [test.p, test.q];
    const both = (raw, set) =>
      percent(raw) + (raw === set ? "" : ` (${say(race.start.greedy ? words.when_greedy : words.as_set, figure(set))})`);
    rows.push([words.p_label, both(p, test.p)]);
    if (q !== null) rows.push([words.q_label, both(q, test.q)]);
    if (test.o !== undefined) rows.push([words.overlap, percent(test.o)]);
    rows.push([words.test_label, say(test.ok ? words.test_passed : words.test_failed, figure(test.u), figure(test.h)), testLine(test)]);
  } else if (entry.p !== undefined) {
    rows.push([words.p_label, percent(entry.best?.find(([text]) => text === entry.t)?.[1] ?? entry.p)]);
  }
  const list = make("dl", "fl-numbers");
  for (const [name, value, more] of rows) {
    const meaning = make("dd", "", value);
    if (more) meaning.append(more);
    list.append(make("dt", "", name), meaning);
  }
  return list;
}

function detailOf(token) {
  const { entry, round } = token;
  const title = make("p", "fl-detail-title");
  title.append(make("b", "", nameOf(entry)), ` ${words[entry.s]}`);
  const parts = [title, make("p", "fl-why", reason(entry, round)), numbers(entry)];
  const best = entry.test?.best ?? entry.best;
  const guess = entry.test?.guess;
  if (best?.length) {
    const columns = make("div", "fl-columns");
    const word = entry.end ? undefined : entry.t;
    columns.append(choices(words.instead, best, word));
    if (guess?.length) columns.append(choices(words.guesses, guess, word));
    parts.push(columns);
  } else if (!entry.test && entry.p === undefined) parts.push(make("p", "fl-soft", words.nothing_kept));
  return parts;
}

/* The call: what was guessed, each test, what the target added, and where the time went. */
function callOf(round) {
  const lane = race.lanes[round.lane];
  const part = make("div", "fl-call");
  part.append(make("p", "fl-call-title", say(words.call_of, round.index + 1, lane.rounds.length, lane.title)));
  const own = round.tokens.filter((entry) => !["accepted", "refused"].includes(entry.s));
  const guesses = [...round.tokens.filter((entry) => !own.includes(entry)), ...round.dropped];
  if (guesses.length) {
    const stood = guesses.filter((entry) => entry.s === "accepted").length;
    part.append(make("p", "", say(words.call_guesses, guesses.length, stood)));
    const list = make("ol", "fl-guesses");
    for (const entry of guesses) {
      const item = make("li", `fl-guess-of fl-${entry.s}`);
      item.append(make("span", "fl-mark", { accepted: "✓", refused: "×" }[entry.s] ?? "–", { "aria-hidden": "true" }));
      item.append(make("span", "fl-word", nameOf(entry)));
      item.append(make("span", "fl-unseen", `: ${words[entry.s]}`));
      if (entry.test) {
        const { ok, u, h } = entry.test;
        item.append(testLine(entry.test), make("span", "fl-soft", `${figure(u)} ${ok ? "<" : "≥"} ${figure(h)}`));
      } else item.append(make("span", "fl-untested fl-soft", words.untested));
      list.append(item);
    }
    part.append(list);
  } else part.append(make("p", "", words.call_plain));
  for (const entry of own) {
    const line = make("p", "", `${words.call_extra} `);
    line.append(make("b", "", nameOf(entry)), ` (${words[entry.s]})`);
    part.append(line);
  }
  const [draft, verify, whole] = round.ms;
  const rest = Math.max(0, whole - draft - verify);
  const bar = make("div", "fl-ms", undefined, { "aria-hidden": "true" });
  for (const [name, value] of [["draft", draft], ["verify", verify], ["rest", rest]]) {
    const piece = make("span", `fl-ms-${name}`);
    piece.style.flexGrow = String(value);
    bar.append(piece);
  }
  const ms = (value) => value.toFixed(value < 10 ? 2 : 1);
  part.append(bar, make("p", "fl-soft", say(words.call_ms, ms(draft), ms(verify), ms(rest), ms(whole))));
  return part;
}

function showDetail(token, pin = false) {
  described?.removeAttribute("aria-describedby");
  described = token;
  pinned = pin ? token : null;
  const parts = detailOf(token);
  if (pin) parts.push(callOf(token.round), button("fl-close", words.close, () => { token.focus(); hideDetail(); }));
  else parts.push(make("p", "fl-soft fl-more", say(words.more, token.round.index + 1)));
  ui.detail.replaceChildren(...parts);
  ui.detail.classList.toggle("fl-pinned", pin);
  ui.detail.setAttribute("role", pin ? "dialog" : "tooltip");
  if (pin) ui.detail.setAttribute("aria-label", say(words.inside, nameOf(token.entry)));
  else ui.detail.removeAttribute("aria-label");
  token.setAttribute("aria-describedby", "fl-detail");
  reveal(ui.detail, true);
  if (pin && matchMedia("(max-width: 600px)").matches) return token.scrollIntoView({ block: "start" }); // a sheet
  const box = root.getBoundingClientRect();
  const place = token.getBoundingClientRect();
  const width = Math.min(400, box.width);
  ui.detail.style.width = `${width}px`;
  const height = ui.detail.offsetHeight;
  let top = place.bottom + 6;
  if (top + height > innerHeight) top = place.top - height - 6 > 0 ? place.top - height - 6 : Math.max(6, innerHeight - height - 6);
  let left = Math.max(0, Math.min(place.left - box.left, box.width - width));
  if (top < place.bottom && top + height > place.top) { // beside the word, where it fits neither above nor below
    const before = place.left - box.left - width - 10;
    left = before > 0 ? before : Math.min(place.right - box.left + 10, box.width - width);
  }
  ui.detail.style.left = `${left}px`;
  ui.detail.style.top = `${top - box.top}px`;
}

function hideDetail() {
  described?.removeAttribute("aria-describedby");
  described = pinned = null;
  reveal(ui.detail, false);
}

const tokenAt = (event) => {
  const token = event.target.closest?.(".fl-lane .fl-token");
  return token?.entry ? token : null;
};
root.addEventListener("pointerover", (event) => {
  if (event.pointerType !== "mouse" || pinned) return;
  const token = race?.playing ? null : tokenAt(event);
  if (token) showDetail(token);
  else hideDetail();
});
root.addEventListener("pointerleave", () => { if (!pinned) hideDetail(); });
root.addEventListener("focusin", (event) => {
  const token = tokenAt(event);
  if (token && token !== described) showDetail(token, Boolean(pinned));
  else if (!token && !ui.detail.contains(event.target)) hideDetail();
});
root.addEventListener("focusout", (event) => { if (!pinned && !tokenAt({ target: event.relatedTarget ?? root })) hideDetail(); });
root.addEventListener("click", (event) => {
  const token = tokenAt(event);
  if (token) {
    if (race.playing) play(false);
    if (token.entry.s === "refused") openRefused(token);
    showDetail(token, true);
  } else if (!ui.detail.contains(event.target)) hideDetail();
});

function openRefused(token) {
  const open = token.classList.toggle("fl-open");
  token.setAttribute("aria-expanded", String(open));
}

function walk(token, direction) {
  const text = token.closest(".fl-text");
  const tokens = [...text.querySelectorAll(".fl-round:not(.fl-future):not(.fl-guess) > .fl-token")];
  const next = tokens[tokens.indexOf(token) + direction];
  if (!next) return;
  token.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}
