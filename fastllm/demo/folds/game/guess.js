/* You be the drafter: the text so far, what became of the last guess, and the score. Drawn from the last
   row of guess.py, which holds all that there is to show; the next turn sends it back, for
   nothing of a game is kept anywhere else. The `js_on_load` of a gr.HTML; writes text only through
   textContent. */

const board = element.querySelector(".fl-game");
const fold = document.getElementById("fl-game");
const field = () => fold.querySelector("#fl-game-words textarea, #fl-game-words input");
const SIGNS = { accepted: "✓", begun: "✓", refused: "×", dropped: "–" };

/* The text so far: made once, so that what reads it aloud hears only what changes. */

const summary = make("p", "fl-game-summary", undefined, { id: "fl-game-so-far", "aria-label": words.so_far });
board.append(make("p", "fl-game-title", words.so_far), summary);

/* What became of it stands below the field, in a part of the page that may come to be after this one. */

const status = make("p", "fl-game-status", "", { role: "status" });
const result = make("div", "fl-game-result");
function settle() {
  const place = fold.querySelector(".fl-game-place");
  if (place) place.replaceChildren(status, result);
  else requestAnimationFrame(settle);
}
settle();

function token(text, state) {
  const word = text.trimStart();
  const node = make("span", `fl-token fl-${state}`);
  node.append(text.slice(0, text.length - word.length) ? " " : "", make("span", "fl-word", word));
  return node;
}

function write(row) {
  const parts = [];
  let own = null;
  for (const [place, [text, state]] of (row ? row.text : []).entries()) {
    const fresh = place >= row.from;
    if (own && state === "plain" && !text.startsWith(" ") && own.fresh === fresh) {
      own.node.lastChild.append(text); // the target finishes its word: one word to look at
      continue;
    }
    const node = token(text, state);
    node.classList.toggle("fl-fresh", fresh);
    parts.push(node);
    own = state === "correction" || state === "bonus" ? { node, fresh } : null;
  }
  if (row?.over) parts.push(make("span", "fl-end", " ∎", { role: "img", "aria-label": words.over }));
  else parts.push(" ", make("span", "fl-game-caret", row ? "…" : words.nothing, { title: words.next }));
  summary.replaceChildren(...parts);
}

function judged(row) {
  const part = make("section", "fl-game-judged");
  part.append(make("h3", "", row.by ? say(words.theirs, row.by) : words.yours));
  const list = make("ol", "fl-game-list");
  const own = row.own ? make("span", "fl-token") : null;
  own?.append(make("span", "fl-word", row.own));
  for (const { t, s, p } of row.judged) {
    const entry = make("li", `fl-game-word fl-is-${s}`);
    const guess = make("span", s === "dropped" ? "fl-dropped" : `fl-token fl-${s === "begun" ? "accepted" : s}`);
    guess.append(make("span", "fl-word", t));
    entry.append(make("span", "fl-game-sign", SIGNS[s], { role: "img", "aria-label": words[s], title: words[s] }), guess);
    if (p !== undefined) entry.append(make("span", "fl-game-p", percent(p)));
    if (own && !own.parentNode && (s === "refused" || s === "begun")) {
      own.classList.add("fl-correction");
      entry.append(own);
    }
    list.append(entry);
  }
  if (own && !own.parentNode && row.judged.every(({ s }) => s !== "dropped")) {
    const entry = make("li", "fl-game-word");
    own.classList.add("fl-bonus");
    entry.append(own);
    list.append(entry);
  }
  if (own?.parentNode) own.title = own.classList.contains("fl-bonus") ? words.bonus : words.instead;
  part.append(list);
  return part;
}

function choices(row) {
  const part = make("section", "fl-game-best");
  part.append(make("h3", "", words.best));
  const list = make("ul", "fl-game-choices");
  const most = Math.max(...row.best.map(([, p]) => p), 0.01);
  list.append(...row.best.map(([text, p, chosen]) => choice("li", text, p, p / most, chosen)));
  part.append(list, make("p", "fl-soft", words.pieces));
  return part;
}

function scores(row) {
  const part = make("section", "fl-game-score");
  part.append(make("h3", "", words.score));
  for (const { key, title, calls, drafted, accepted, tokens } of row.players) {
    const line = make("div", "fl-game-player");
    const track = make("div", "fl-track", undefined, { "aria-hidden": "true" });
    const fill = make("div", "fl-fill", undefined, { "data-key": key });
    const rate = drafted ? accepted / drafted : 0;
    fill.style.transform = `scaleX(${rate})`;
    track.append(fill);
    const said = calls
      ? [say(words.share, accepted, drafted), say(words.per_call, (tokens / calls).toFixed(1))].join(" · ")
      : words.none;
    line.append(
      make("span", "fl-bar-name", title), track,
      make("span", "fl-game-rate", drafted ? `${Math.round(100 * rate)} %` : "–"), make("span", "fl-soft fl-game-counts", said),
    );
    part.append(line);
  }
  if (row.game.typed) part.append(make("p", "fl-soft", say(words.words, row.game.stood, row.game.typed)));
  part.append(make("p", "fl-soft", words.note));
  return part;
}

function show(row) {
  write(row);
  fold.classList.toggle("fl-game-over", Boolean(row?.over));
  const parts = [];
  if (row) {
    for (const text of row.notices) parts.push(make("p", "fl-notice", text));
    if (row.over && row.closing.length) {
      const end = make("div", "fl-game-closing");
      row.closing.forEach((text, place) => end.append(make("p", place ? "" : "fl-game-verdict", text)));
      parts.push(end);
    }
    const asked = row.players.some((player) => player.calls);
    if (row.judged.length) parts.push(judged(row));
    if (row.best.length) parts.push(choices(row));
    if (asked) parts.push(scores(row));
  }
  result.replaceChildren(...parts);
}

/* A guess that was checked leaves the field, and the field keeps the focus; one that was refused stays. */
function ready(row) {
  const box = field();
  if (row?.kind === "words" && box) {
    if (box.value.trim().split(/\s+/).join(" ") === row.guess) {
      box.value = "";
      box.dispatchEvent(new Event("input", { bubbles: true }));
    }
    if (document.activeElement?.closest("#fl-game-check")) box.focus({ preventScroll: true });
  }
  // At the end the field and most buttons are gone, and the focus with them.
  if (row?.over) fold.querySelector("#fl-game-again")?.focus({ preventScroll: true });
}

/* The field takes the focus, unless that has gone elsewhere. It may be shown, or be made anew by the
   page, some frames later: so it is tried until it holds for half a second, or three have passed. */
function takeFocus() {
  const until = performance.now() + 3000;
  let held = 0;
  let before = performance.now();
  const attempt = () => {
    const now = performance.now();
    const box = field();
    const active = document.activeElement;
    const elsewhere = active && active !== document.body && !active.closest("#fl-game-again") && active.checkVisibility();
    if (box && active === box) held += now - before;
    else if (elsewhere) return;
    else {
      held = 0;
      box?.focus({ preventScroll: true });
    }
    before = now;
    if (held < 500 && now < until) requestAnimationFrame(attempt);
  };
  attempt();
}

const busy = (on, text) => {
  fold.classList.toggle("fl-game-busy", on);
  status.textContent = text;
};

let drawn = null;
let again = false;
let stopping = false;

function update() {
  const value = typeof props.value === "string" ? props.value : "";
  const whole = value.slice(0, value.lastIndexOf("\n") + 1);
  const last = whole.trimEnd().split("\n").at(-1);
  if (last === drawn) return;
  drawn = last;
  const row = last ? JSON.parse(last) : null;
  show(row);
  if (row?.goes_on) return;
  busy(false, row ? row.sentence : "");
  ready(row);
  if (again) takeFocus(); // at the end of a game it was hidden until now
  again = false;
}

const waited = () => fold.classList.contains("fl-game-busy");
window.addEventListener("fastllm-guess-go", () => {
  stopping = false;
  busy(true, words.checking);
});
window.addEventListener("fastllm-guess-stop", () => {
  if (!waited()) return;
  stopping = true;
  busy(true, words.stopping);
});
window.addEventListener("fastllm-guess-failed", () => {
  // Gradio calls a turn that was stopped a failed one too, once the server has let go of it.
  if (waited()) busy(false, stopping ? words.stopped : words.failed);
});
window.addEventListener("fastllm-guess-again", () => {
  busy(false, "");
  again = Boolean(drawn);
  field()?.focus({ preventScroll: true });
});
watch("value", update);
update();
