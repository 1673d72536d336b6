/* Sets what the address asks for (`linkOf` in state.js), and leaves alone what it does not name. Values that
   this page does not offer are passed over. The body of a function whose `known` is made in race.py. */

const asked = new URLSearchParams(location.search);
const same = { __type__: "update" };
if (!asked.has("lanes") && !asked.has("sample")) return [same, same, same, same, ...known.settings.map(() => same)];

/* One's own text, packed into the part behind "#". What is longer than the page takes is left out. */
const ownText = async () => {
  const packed = new URLSearchParams(location.hash.slice(1)).get("text");
  if (!packed) return "";
  try {
    const bytes = Uint8Array.from(atob(packed.replace(/-/g, "+").replace(/_/g, "/")), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    const decoder = new TextDecoder();
    let text = "";
    for (const reader = stream.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) return text;
      text += decoder.decode(value, { stream: true });
      if (text.length > known.characters) return "";
    }
  } catch {
    return ""; // a damaged link: the box is open and empty
  }
};
const whenThere = async () => {
  while (!window.fastllmSamples) await new Promise((then) => setTimeout(then, 20));
  return window.fastllmSamples;
};
const setting = (name) => {
  const text = asked.get(name);
  if (text === null) return same;
  if (name === "verification") return known.rules.includes(text) ? text : same;
  const [low, high] = known.bounds[name];
  const value = Number(text);
  if (!(text.trim() && value >= low && value <= high)) return same;
  if (name === "lenience" && asked.get("verification") === "lenient") {
    return { __type__: "update", value, visible: true };
  }
  return value;
};
const lanes = (asked.get("lanes") ?? "").split(",").filter((key) => known.lanes.includes(key));
return Promise.all([whenThere(), ownText()]).then(([samples, own]) => {
  const title = asked.get("sample");
  const there = title !== null && Object.hasOwn(samples, title);
  const article = there
    ? [title, samples[title], same]
    : [known.own, own, { __type__: "update", open: !own }];
  const chosen = lanes.length > 1 ? lanes.slice(0, known.most) : same;
  return [...article, chosen, ...known.settings.map(setting)];
});
