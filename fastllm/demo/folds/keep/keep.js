/* The live view: what one takes home. Everything is made here, of what is here already: no
   server is asked, and nothing is stored. */

const keep = {
  link: make("input", "fl-link", undefined, { type: "text", readonly: "", "aria-label": words.link }),
  told: make("span", "fl-soft", "", { role: "status" }),
  linkNote: make("p", "fl-soft", ""),
  code: make("pre", "fl-code", "", { tabindex: "0", "aria-label": words.code }),
};

const slug = () => (race.start.article || "race").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "") || "race";

/* A line for each lane, which `Trace.loads` reads. */
function traceText() {
  const { traces, source } = race.end;
  return traces.map((trace) => `${JSON.stringify({ source, ...trace })}\n`).join("");
}

const codeText = () => race.end.code.replace("{article}", () => JSON.stringify(race.end.source).replace(TURNS, escaped));

/* A page that plays this race by itself: this function, its style, the rows. It asks for nothing. */
async function replayText() {
  const { start, end } = race;
  const { traces, code, source, ...last } = end;
  const rounds = race.lanes.flatMap((lane) => lane.rounds).sort((a, b) => a.to - b.to);
  const rows = [
    { ...start, mode: "recorded" },
    ...rounds.map(({ block, index, guessed, written, ...row }) => row),
    last,
  ];
  const text = rows.map((row) => JSON.stringify(row).replace(/[<>&\u2028\u2029]/g, escaped)).join("\n");
  const asText = (text) => make("p", "", text).innerHTML; // escaped
  const link = await linkOf();
  const title = asText(`${words.title}: ${start.article || words.replay}`);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<style>${sheet}</style>
</head>
<body class="fl-file">
<div class="fl-head"><h1>${words.title}</h1><p>${words.claim}</p></div>
<main id="fl-view"><div class="fl-race"></div></main>
<details class="fl-source"><summary>${words.article}</summary><p>${asText(source)}</p></details>
<p class="fl-soft">${say(words.saved, new Date().toISOString().slice(0, 10))} <a href="${asText(link).replace(/"/g, "&quot;")}">${words.race_again}</a></p>
<script type="application/x-ndjson" id="fl-rows">${text}
<\/script>
<script>
const dark = matchMedia("(prefers-color-scheme: dark)");
const dress = () => document.body.classList.toggle("dark", dark.matches);
dark.addEventListener("change", dress);
dress();
const view = ${view.toString()};
view(document.getElementById("fl-view"), { value: document.getElementById("fl-rows").textContent, file: true }, () => {});
<\/script>
</body>
</html>
`;
}

const escaped = (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`;

/* What there is to take: nothing of a race that has not ended, and in a file no more than it is. */
function offer() {
  reveal(ui.keep, Boolean(race?.end?.traces?.length));
  if (ui.keep.open) fillKeep();
}

async function fillKeep() {
  if (!race?.end?.traces) return;
  keep.told.textContent = "";
  keep.link.value = await linkOf();
  keep.linkNote.textContent = race.start.article ? "" : words.link_own;
  keep.code.textContent = codeText();
}

ui.keep.append(make("summary", "", words.keep));
{
  const row = (...nodes) => { const line = make("div", "fl-keep-row"); line.append(...nodes); return line; };
  ui.keep.append(
    row(
      button("fl-take", words.take_replay, async () => download(`fastllm-${slug()}.html`, "text/html", await replayText())),
      button("fl-take", words.take_trace, () => download(`fastllm-${slug()}.jsonl`, "application/x-ndjson", traceText())),
      keep.told,
    ),
    make("p", "fl-soft", words.take_note),
    row(keep.link, button("fl-take", words.copy_link, async () => { await fillKeep(); put(keep.link.value, keep.told, keep.link); })),
    keep.linkNote,
    row(make("span", "fl-keep-title", words.code), button("fl-take", words.copy_code, () => put(codeText(), keep.told, keep.code))),
    keep.code,
  );
}
ui.keep.addEventListener("toggle", fillKeep);
reveal(ui.keep, false);
