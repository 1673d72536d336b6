/* A file that a visitor opens: read and decoded here, and sent as a value of the page, never as an upload, so
   that it lies on no disk of the server. Like the live view it is the `js_on_load` of a gr.HTML; `words` and
   `most` (bytes) stand before this file. The value is what `articles.read_file` takes; of the file's name
   only the ending goes with it. */

const chosen = element.querySelector("input[type=file]");
const told = element.querySelector(".fl-upload-told");
const MARKS = { fffe: "utf-16le", feff: "utf-16be" }; // the first two bytes of a file

async function read(file) {
  told.textContent = "";
  try {
    if (file.size > most) throw new RangeError(say(words.large, most.toLocaleString("en-US")));
    const bytes = new Uint8Array(await file.arrayBuffer());
    const mark = [...bytes.slice(0, 2)].map((byte) => byte.toString(16)).join("");
    const text = new TextDecoder(MARKS[mark] ?? "utf-8", { fatal: true }).decode(bytes);
    const type = /\.[^.]*$/.exec(file.name)?.[0].toLowerCase() ?? "";
    props.value = JSON.stringify({ type, text });
    trigger("upload");
  } catch (error) {
    told.textContent = error instanceof RangeError ? error.message : words.unreadable;
    trigger("clear"); // what was opened before is not what was chosen last
  }
}

chosen.addEventListener("change", () => {
  const file = chosen.files[0];
  chosen.value = ""; // so that the same file can be opened again
  if (file) read(file);
});
