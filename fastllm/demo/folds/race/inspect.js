/* The live view, fifth part: what is known of a word, in a column beside the text, or a sheet below it.

   The word is outlined in the text, under which every lane has its strip. The arrows walk from word to word,
   Enter goes inside, Escape comes back. */

let opened = null; // {text, word, lane, piece}

const figure = (p) => (p === 0 || p === 1 ? String(p) : p < 0.0001 ? "<0.0001" : p.toFixed(p < 0.01 || p > 0.995 ? 4 : 2));

function choose(text, word) {
  if (text.chosen) {
    text.chosen.node.classList.remove("fl-chosen");
    text.chosen.node.setAttribute("aria-selected", "false");
  }
  text.chosen = word;
  if (!word) return text.shown.removeAttribute("aria-activedescendant");
  word.node.classList.add("fl-chosen");
  word.node.setAttribute("aria-selected", "true");
  text.shown.setAttribute("aria-activedescendant", word.node.id);
  word.node.scrollIntoView({ block: "nearest" });
}

function walk(text, direction) {
  const index = text.chosen ? text.chosen.index + direction : 0;
  const word = text.list[Math.max(0, Math.min(text.list.length - 1, index))];
  if (!word) return;
  choose(text, word);
  if (opened) showDetail(text, word, opened.lane.text === text ? opened.lane : text.lanes[0]);
}

function openWord(text, lane) {
  const word = text.chosen ?? text.list[0];
  if (!word) return;
  choose(text, word);
  showDetail(text, word, lane ?? usual(text, word));
  ui.detail.focus({ preventScroll: true });
}

/* The lane that is looked into first: the one asked for last, else the best of those that guessed. */
let preferred = "";
function usual(text, word) {
  const wrote = text.lanes.filter((lane) => lane.written.length > word.from);
  return wrote.find((lane) => lane.key === preferred)
    ?? wrote.findLast((lane) => lane.written[word.from].round.guessed) ?? wrote[0] ?? text.lanes[0];
}

function closeDetail() {
  if (!opened) return;
  const { text } = opened;
  hideDetail();
  text.shown.focus({ preventScroll: true });
}

function hideDetail() {
  if (opened) choose(opened.text, null);
  opened = null;
  reveal(ui.detail, false);
  root.classList.remove("fl-inspecting");
}

function showDetail(text, word, lane, at) {
  const own = lane.written.slice(word.from, word.to);
  opened = { text, word, lane };
  // The piece with most to tell: one that was refused first.
  const piece = own[at ?? Math.max(0, own.findIndex(({ refused }) => refused))];
  const title = make("h2", "fl-h2", say(words.inside, word.label.textContent));
  const head = make("div", "fl-detail-head");
  head.append(title, button("fl-close", `${words.close} ✕`, closeDetail));
  const tabs = make("div", "fl-which", undefined, { role: "group", "aria-label": words.lanes });
  for (const each of text.lanes) {
    const state = each.written[word.to - 1] ? each.written.slice(word.from, word.to) : [];
    const told = button(`fl-which-lane fl-c${each.colour}`, each.title, () => {
      preferred = each.key;
      showDetail(text, word, each);
      ui.detail.querySelector('[aria-pressed="true"]')?.focus();
    });
    told.setAttribute("aria-pressed", String(each === lane));
    told.disabled = !state.length;
    tabs.append(told);
  }
  const parts = [head];
  if (text.lanes.length > 1) parts.push(tabs);
  if (own.length > 1) {
    const pieces = make("div", "fl-which", undefined, { role: "group", "aria-label": words.pieces_of });
    own.forEach((each, index) => {
      const told = button("fl-which-piece", nameOf(each.entry), () => {
        showDetail(text, word, lane, index);
        ui.detail.querySelector('.fl-which-piece[aria-pressed="true"]')?.focus();
      });
      told.setAttribute("aria-pressed", String(each === piece));
      pieces.append(told);
    });
    parts.push(pieces);
  }
  if (piece) parts.push(...detailOf(piece, lane));
  else parts.push(make("p", "fl-soft", words.not_written));
  ui.detail.setAttribute("aria-label", say(words.inside, word.label.textContent));
  ui.detail.replaceChildren(...parts);
  stopRound();
  reveal(ui.detail, true);
  root.classList.add("fl-inspecting");
  word.node.scrollIntoView({ block: "nearest" }); // a sheet may have come over it
}

function detailOf({ entry, round, refused }, lane) {
  const parts = [];
  if (refused) parts.push(judgement(refused, round));
  parts.push(judgement(entry, round, refused));
  parts.push(make("h3", "fl-h3", say(words.call_of, round.index + 1, lane.rounds.length)));
  const scene = picture(round);
  scene.dataset.step = LAST_STEP;
  parts.push(scene);
  if (!calm && round.guessed) parts.push(button("fl-take", words.watch_call, () => playRound(scene)));
  parts.push(...clockOfCall(round));
  return parts;
}

/* One word, what it is, why, and the odds that decided. After a refused guess the target's own word was
   drawn at the same place: the odds stand with the guess. */
function judgement(entry, round, refused) {
  const part = make("div", "fl-judgement");
  const title = make("p", "fl-detail-title");
  title.append(make("b", "", nameOf(entry)), ` ${words[entry.s]}`);
  part.append(title, make("p", "fl-why", reason(entry, round)));
  const { test } = entry;
  if (test) {
    const q = test.guess ?? [];
    const p_own = test.raw?.[0] ?? test.p;
    const q_own = test.raw?.[1] ?? test.q; // a lookup has no odds: it is sure of its guess
    if (test.best?.length || q.length) part.append(odds(test.best ?? [], q, entry, p_own, q_own));
    part.append(...ruleOf(test));
  } else if (refused?.test) part.append(make("p", "fl-soft", words.same_odds));
  else if (entry.best?.length) part.append(odds(entry.best, [], entry, entry.p, null));
  else if (entry.p === undefined) part.append(make("p", "fl-soft", words.nothing_kept));
  return part;
}

/* Why a word stands, or does not. */
function reason(entry, round) {
  const { test } = entry;
  const { rule, greedy, lossy } = race.start;
  if (entry.s === "plain") return words.why_plain;
  if (entry.s === "correction") return greedy ? words.why_correction : words.why_correction_drawn;
  if (entry.s === "bonus") return words.why_bonus;
  if (!test) return words.dropped;
  if (greedy) return entry.s === "accepted" ? words.why_greedy : words.why_not_greedy;
  if (rule === "block") {
    if (entry.s === "accepted") return test.ok ? words.why_block : words.why_block_later;
    return words.why_not_block;
  }
  return (test.ok ? words.why_token : words.why_not_token) + (lossy ? ` ${words.why_lenient}` : "");
}

/* The rule with its numbers. Greedy draws none. */
function ruleOf(test) {
  const { greedy, rule, lossy } = race.start;
  const parts = [];
  if (greedy) return parts;
  if (test.o !== undefined) parts.push(make("p", "fl-sum", say(words.overlap_sum, figure(test.o), figure(Math.max(0, 1 - test.o)))));
  const said = rule === "block" || lossy
    ? say(words.rule_other, figure(test.h))
    : say(words.rule_token, figure(test.p), figure(test.q), figure(test.h));
  parts.push(make("p", "fl-rule", `${said} ${say(test.ok ? words.drawn_below : words.drawn_above, figure(test.u))}`));
  const line = make("div", `fl-test fl-${test.ok ? "passed" : "failed"}`, undefined, { "aria-hidden": "true" });
  const below = make("span", "fl-below");
  below.style.width = `${100 * Math.min(1, test.h)}%`;
  const drawn = make("span", "fl-drawn");
  drawn.style.left = `${100 * test.u}%`;
  line.append(below, drawn);
  parts.push(line);
  return parts;
}

/* p and q as bars from one line, over the union of the best of both. What both cover is shaded; what the
   target has more, and could still give after a refusal, is hatched. A word that is among the best of only
   one has an unknown probability in the other. */
function odds(best, guess, entry, p_own, q_own) {
  const known = new Map();
  const at = (text) => {
    if (!known.has(text)) known.set(text, { p: null, q: null });
    return known.get(text);
  };
  // A name may stand twice: two tokens that read alike. The less likely one is among all others.
  for (const [text, p] of best) at(text).p ??= p;
  for (const [text, q] of guess) at(text).q ??= q;
  const name = entry.end ? null : entry.t;
  const asked = q_own !== null;
  if (name !== null && asked) Object.assign(at(name), { p: p_own, q: q_own });
  else if (name !== null) at(name).p ??= p_own ?? null;
  const rows = [...known].sort(([, a], [, b]) => (b.p ?? 0) - (a.p ?? 0) || (b.q ?? 0) - (a.q ?? 0));
  const sum = (which) => rows.reduce((sum, [, each]) => sum + (each[which] ?? 0), 0);
  const rest = { p: Math.max(0, 1 - sum("p")), q: asked ? Math.max(0, 1 - sum("q")) : null };
  const list = make("table", "fl-odds");
  const { greedy, settings } = race.start;
  const filtered = !greedy && (settings.temperature !== 1 || settings.top_p < 1);
  list.append(make("caption", "", (asked ? words.odds : words.odds_p) + (filtered ? ` ${words.odds_unfiltered}` : "")));
  const header = list.createTHead().insertRow();
  for (const text of [words.word, "", words.p_label, ...(asked ? [words.q_label] : [])]) header.append(text ? make("th", "", text, { scope: "col" }) : make("td"));
  const body = list.createTBody();
  const line = (text, { p, q }, kind, apart) => {
    const row = body.insertRow();
    if (kind) row.className = kind;
    const bars = make("td", "fl-bars", undefined, { "aria-hidden": "true" });
    const bar = (which, from, to) => {
      const piece = make("span", `fl-bar fl-bar-${which}`);
      piece.style.left = `${100 * from}%`;
      piece.style.width = `${100 * Math.max(0, to - from)}%`;
      bars.append(piece);
    };
    bar("p", 0, p ?? 0);
    if (asked) {
      bar("q", 0, q ?? 0);
      if (p !== null && q !== null && !apart) {
        bar("both", 0, Math.min(p, q));
        bar("more", Math.min(p, q), p);
      }
    }
    const number = (value) => make("td", "", value === null ? words.unknown : percent(value));
    row.append(make("th", "", text, { scope: "row" }), bars, number(p));
    if (asked) row.append(number(q));
  };
  for (const [text, each] of rows) line(text.trim() || "·", each, text === name ? "fl-this" : "");
  line(words.others, rest, "fl-rest", true); // which of these both have in common is not known
  return list;
}

function clockOfCall(round) {
  const [draft, verify, whole] = round.ms;
  const rest = Math.max(0, whole - draft - verify);
  const bar = make("div", "fl-ms", undefined, { "aria-hidden": "true" });
  for (const [name, value] of [["draft", draft], ["verify", verify], ["rest", rest]]) {
    const piece = make("span", `fl-ms-${name}`);
    piece.style.flexGrow = String(value);
    bar.append(piece);
  }
  const ms = (value) => value.toFixed(value < 10 ? 2 : 1);
  return [bar, make("p", "fl-soft", say(words.call_ms, ms(draft), ms(verify), ms(rest), ms(whole)))];
}

ui.lanes.addEventListener("click", (event) => {
  if (!race) return;
  const word = event.target.closest?.(".fl-word")?.word;
  if (!word || String(getSelection())) return; // whoever marks words does not ask about one
  if (race.playing) play(false);
  if (opened && opened.text !== word.text) choose(opened.text, null);
  choose(word.text, word);
  const cell = event.target.closest(".fl-cell");
  openWord(word.text, cell ? race.lanes[Number(cell.dataset.lane)] : undefined);
});
