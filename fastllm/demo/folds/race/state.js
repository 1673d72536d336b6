/* The live view, sixth part: the address says what is on the screen, so that a reload, Back and a link bring it
   again: the sample or one's own text, the lanes, the settings, the moment. One's own text is packed into the
   part behind "#", which no browser sends. A race that was run live is kept in this tab alone. */

const SETTING_NAMES = ["gamma", "temperature", "top_p", "seed", "max_new_tokens", "verification", "lenience"];
const KEPT = "fastllm-race-";
const OWN_TEXT = "text=";

const base64 = (bytes) => btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), "")).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

async function packed(text) {
  const stream = new Blob([text]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  return base64(new Uint8Array(await new Response(stream).arrayBuffer()));
}

function fieldsOf(sample, lanes, settings) {
  const link = new URLSearchParams();
  if (sample) link.set("sample", sample);
  link.set("lanes", lanes.join(","));
  SETTING_NAMES.forEach((name, index) => link.set(name, String(settings[index])));
  return link;
}

const addressOf = async (link, own) => `${location.origin}${location.pathname}?${link}${own ? `#${OWN_TEXT}${await packed(own)}` : ""}`;

/* The address of the moment: what was raced, and the call that was the last to end. Calls, not seconds:
   these are another machine's own. */
async function linkOf() {
  const { start, end } = race;
  const link = fieldsOf(start.article, start.lanes.map((lane) => lane.key), SETTING_NAMES.map((name) => start.settings[name]));
  const moment = atEnd() || writing() ? null : latest();
  if (!atEnd() && !writing()) link.set("at", moment ? `${race.lanes[moment.lane].key}:${moment.index + 1}` : "start");
  if (!byCall()) link.set("by", "time");
  return addressOf(link, start.article ? "" : end?.source);
}

/* What is chosen in the fields, since the first of them was changed; the same as text when the race on the
   screen was begun here, and of one that is asked for. */
let chosen = null;
let touched = false;
let raced = null;
let asking = null;

/* Whether what is chosen is another race than the one on the screen. */
function differs() {
  if (!chosen) return false;
  if (raced) return raced !== JSON.stringify(chosen);
  const { start, end } = race;
  const without = (name) => (start.greedy && name === "verification") || (name === "lenience" && start.settings.verification !== "lenient");
  return (
    chosen.sample !== start.article
    || (!start.article && chosen.article.trim() !== (end?.source ?? "").trim())
    || [...chosen.lanes].sort().join() !== start.lanes.map((lane) => lane.key).sort().join()
    || SETTING_NAMES.some((name, index) => !without(name) && String(chosen.settings[index]) !== String(start.settings[name]))
  );
}

/* The address of what is chosen and was not raced yet. */
const linkOfChosen = () => addressOf(fieldsOf(chosen.sample, chosen.lanes, chosen.settings), chosen.sample ? "" : chosen.article);

/* Whether the race on the screen is the one that the page was opened with; null where that was none. */
function asked() {
  if (!address.has("lanes")) return null;
  const { start } = race;
  return (
    (address.get("sample") ?? "") === start.article &&
    address.get("lanes") === start.lanes.map((lane) => lane.key).join(",") &&
    SETTING_NAMES.every((name) => !address.has(name) || address.get(name) === String(start.settings[name])
      || (start.greedy && name === "verification")) // every rule comes to the same then
  );
}

let restored = false;

/* Goes to the moment of the address, once; says whether it did. */
function restore() {
  if (restored || !asked()) return false;
  restored = true;
  if (address.get("by") === "time") ui.axis.value = "time";
  const at = address.get("at") ?? "";
  const [, key, count] = /^(.*):(\d+)$/.exec(at) ?? [];
  const round = race.lanes.find((lane) => lane.key === key)?.rounds[Number(count) - 1];
  describe();
  show(at === "start" ? 0 : round ? endOf(round) : total());
  return true;
}

/* The tab that is open, but for the race's own. */
function withTab(link, tab = new URLSearchParams(location.search).get("tab")) {
  const there = new URL(link);
  if (tab && tab !== "race") there.searchParams.set("tab", tab);
  else there.searchParams.delete("tab");
  return there.href;
}

/* Writes the address: another race is a step that Back undoes, another moment is none. */
let writes = 0;
async function writeAddress(fresh) {
  if (props.file || presenting) return;
  const number = (writes += 1);
  const link = await (touched && differs() ? linkOfChosen() : linkOf()).then(withTab);
  if (number !== writes) return;
  const state = { ...history.state, fastllm: race.live ? kept ?? history.state?.fastllm : null };
  if (fresh && link !== location.href) history.pushState(state, "", link);
  else history.replaceState(state, "", link);
}

let remembering = 0;
function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => { if (race && !writing() && (race.settled || touched)) writeAddress(false); }, 300);
}

/* The rows of a live race, for a reload of this tab. Where there is no room the oldest make some. */
let kept = null;
function keepRace(text) {
  kept = null;
  if (props.file) return;
  const name = `${KEPT}${Date.now()}`;
  const others = Object.keys(sessionStorage).filter((each) => each.startsWith(KEPT)).sort();
  for (;;) {
    try {
      sessionStorage.setItem(name, text);
      kept = name;
      return;
    } catch {
      const oldest = others.shift();
      if (!oldest) return; // larger than all the room there is: the address alone brings it back
      sessionStorage.removeItem(oldest);
    }
  }
}

const keptRace = () => (props.file ? null : history.state?.fastllm && sessionStorage.getItem(history.state.fastllm));

if (!props.file) {
  // Back and Forward between races: the fields and the race come again as on a reload.
  window.addEventListener("popstate", () => location.reload());
  document.getElementById("fl-parts")?.addEventListener("click", ({ target }) => {
    const [, tab] = /^fl-tab-(\w+)-button$/.exec(target.closest("[role=tab]")?.id ?? "") ?? [];
    if (tab) history.replaceState(history.state, "", withTab(location.href, tab));
  });
  document.getElementById(`fl-tab-${address.get("tab")}-button`)?.click();
}
