/* The live view, second part: the text, and under each of its words a strip for every lane.

   A text is one for all lanes, or one for each. A word is what stands between two spaces; its mark is
   that of its pieces together, until they are asked for. A strip is laid over the space behind its word, so
   that words are plain inline text, which copies as such. */

let texts = [];
let pieced = false;

const startsWord = (entry) => entry.end || /^\s/.test(entry.t);

function layTexts(shared) {
  race.shared = shared;
  const groups = shared ? [race.lanes] : race.lanes.map((lane) => [lane]);
  texts = groups.map((lanes, index) => makeText(lanes, index));
  ui.lanes.replaceChildren(...texts.map((text) => text.node));
  ui.texts_title.textContent = shared ? words.summary : words.summaries;
  for (const lane of race.lanes) {
    lane.reached = 0;
    for (let at = 0; at < lane.written.length; at += 1) addToken(lane, at);
  }
}

function makeText(lanes, index) {
  const node = make("div", "fl-text-box");
  const shown = make("div", "fl-text", undefined, {
    role: "listbox", tabindex: "0", "aria-orientation": "horizontal",
    "aria-label": race.shared ? words.look_inside : say(words.look_inside_of, lanes[0].title),
  });
  const spoken = make("p", "fl-unseen", "");
  shown.style.setProperty("--fl-rows", lanes.length);
  if (lanes.length > 6) shown.classList.add("fl-many");
  if (!race.shared) node.append(make("h3", `fl-text-of fl-c${lanes[0].colour}`, lanes[0].title));
  node.append(spoken, shown);
  const text = { node, shown, spoken, lanes, list: [], tokens: [], reached: 0, chosen: null, index };
  shown.text = text;
  for (const lane of lanes) lane.text = text;
  return text;
}

/* A token that a lane has written. The first lane to write it brings the word. */
function addToken(lane, at) {
  const { text } = lane;
  const { entry } = lane.written[at];
  if (at === text.tokens.length) {
    text.tokens.push(entry);
    if (!text.list.length || startsWord(entry)) text.list.push(makeWord(text, at));
    const word = text.list[text.list.length - 1];
    word.to = at + 1;
    word.label.textContent = entry.end ? "∎" : (word.label.textContent + entry.t).trimStart();
    if (entry.end) word.node.classList.add("fl-end");
  } else if (race.shared && (text.tokens[at].t !== entry.t || text.tokens[at].end !== entry.end)) {
    return layTexts(false); // the texts differ after all
  }
  const word = wordAt(text, at);
  dress(lane, word);
}

function makeWord(text, at) {
  const id = `fl-word-${text.index}-${text.list.length}`;
  const node = make("span", "fl-word fl-ahead", undefined, { role: "option", id, "aria-selected": "false" });
  const label = make("span", "fl-letters", "");
  const stack = make("span", "fl-stack", undefined, { "aria-hidden": "true" });
  const cells = text.lanes.map((lane) => make("i", `fl-cell fl-mark fl-c${lane.colour} fl-future`, undefined, { "data-lane": lane.index }));
  stack.append(...cells);
  node.append(label, stack);
  text.shown.append(node, " ");
  const word = { node, label, cells, from: at, to: at + 1, index: text.list.length, text };
  node.word = word;
  return word;
}

function wordAt(text, at) {
  let low = 0;
  let high = text.list.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (text.list[middle].from <= at) low = middle;
    else high = middle - 1;
  }
  return text.list[low];
}

/* What a word is, of its pieces: the loudest of them. */
const LOUD = ["accepted", "plain", "bonus", "correction"];

function dress(lane, word) {
  const cell = word.cells[lane.text.lanes.indexOf(lane)];
  const own = lane.written.slice(word.from, word.to);
  if (!own.length) return;
  const state = LOUD[Math.max(...own.map(({ entry }) => LOUD.indexOf(entry.s)))];
  const before = word.from ? lane.written[word.from - 1].round : null;
  const begins = (piece, index) => piece.round !== (index ? own[index - 1].round : before);
  const first = pieced ? begins(own[0], 0) : own.at(-1).round !== before;
  const future = cell.classList.contains("fl-future");
  cell.className = `fl-cell fl-mark fl-c${lane.colour} fl-${pieced && own.length > 1 ? "pieces" : state}`
    + `${first ? " fl-first" : ""}${own.some(({ refused }) => refused) ? " fl-struck" : ""}${future ? " fl-future" : ""}`;
  if (!pieced || own.length < 2) return cell.replaceChildren();
  cell.classList.remove("fl-struck");
  cell.replaceChildren(...own.map((piece, index) => {
    const part = make("i", `fl-piece fl-mark fl-${piece.entry.s}${index && begins(piece, index) ? " fl-first" : ""}${piece.refused ? " fl-struck" : ""}`);
    part.style.flexGrow = String(Math.max(1, piece.entry.t.trim().length));
    return part;
  }));
}

/* What the lanes have written at this moment: their strips up to there, and the words of the furthest. */
function reveal_words() {
  for (const text of texts) {
    for (const [row, lane] of text.lanes.entries()) {
      const written = lane.shown ? lane.rounds[lane.shown - 1].written : 0;
      while (lane.reached < text.list.length && text.list[lane.reached].to <= written) {
        text.list[lane.reached].cells[row].classList.remove("fl-future");
        lane.reached += 1;
      }
      while (lane.reached > 0 && text.list[lane.reached - 1].to > written) {
        lane.reached -= 1;
        text.list[lane.reached].cells[row].classList.add("fl-future");
      }
    }
    const reached = Math.max(...text.lanes.map((lane) => lane.reached));
    for (; text.reached < reached; text.reached += 1) text.list[text.reached].node.classList.remove("fl-ahead");
    for (; text.reached > reached; text.reached -= 1) text.list[text.reached - 1].node.classList.add("fl-ahead");
  }
}

const plainText = (text) => text.tokens.map((entry) => (entry.end ? "" : entry.t)).join("").trim();

/* Screen readers get the text as one sentence, before its words as a list to walk through. */
function speak() {
  for (const text of texts) {
    const by = race.shared ? words.summary : text.lanes[0].title;
    text.spoken.textContent = `${by}: ${plainText(text)}`;
  }
}

async function put(text, told, field) {
  try {
    await navigator.clipboard.writeText(text);
    told.textContent = words.copied;
  } catch {
    if (field.select) { // not allowed here: it is selected, and one key copies it
      field.focus();
      field.select();
    } else getSelection().selectAllChildren(field);
    told.textContent = words.copy_by_hand;
  }
}

ui.copy.addEventListener("click", () => {
  if (!race) return;
  const text = race.shared
    ? plainText(texts[0])
    : texts.map((each) => `${each.lanes[0].title}: ${plainText(each)}`).join("\n\n");
  put(text, ui.copied, ui.lanes);
});
/* A strip under a word is a box, of which a browser makes a new line of the text that is copied. */
ui.lanes.addEventListener("copy", (event) => {
  if (getSelection().anchorNode?.parentElement.closest(".fl-text") !== getSelection().focusNode?.parentElement.closest(".fl-text")) return;
  event.clipboardData.setData("text/plain", String(getSelection()).replace(/\s*\n\s*/g, " ").trim());
  event.preventDefault();
});
ui.pieces.addEventListener("change", () => {
  pieced = ui.pieces.checked;
  if (!race) return;
  for (const text of texts) for (const lane of text.lanes) for (const word of text.list) dress(lane, word);
});
