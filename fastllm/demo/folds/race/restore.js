/* Sets what the address asks for (`linkOf` in replay.js), and leaves alone what it does not name. Values that
   this page does not offer are passed over. The body of a function whose `known` is made in race.py. */

const asked = new URLSearchParams(location.search);
const same = { __type__: "update" };
if (!asked.has("lanes")) return [same, same, same, same, ...known.settings.map(() => same)];
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
const lanes = asked.get("lanes").split(",").filter((key) => known.lanes.includes(key));
return whenThere().then((samples) => {
  const title = asked.get("sample");
  const there = title !== null && Object.hasOwn(samples, title);
  const article = there
    ? [title, samples[title], same]
    : [known.own, "", { __type__: "update", open: true }];
  const chosen = lanes.length > 1 && lanes.length <= known.most ? lanes : same;
  return [...article, chosen, ...known.settings.map(setting)];
});
