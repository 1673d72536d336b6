/* A file that a visitor opens: read here, and sent as a value of the page, never as an upload, so that it
   lies on no disk of the server. Like the live view it is the `js_on_load` of a gr.HTML; `words`, `most`
   (bytes) stand before this file. The value is what `articles.read_file` takes; of the file's name
   only the ending goes with it. */

const chosen = element.querySelector("input[type=file]");
const told = element.querySelector(".fl-upload-told");

/* Base64 in pieces: a call takes only so many arguments. */
function packed(bytes) {
  let letters = "";
  for (let at = 0; at < bytes.length; at += 0x8000) letters += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(letters);
}

async function read(file) {
  told.textContent = "";
  try {
    // One byte more than is taken is enough to tell that there are too many.
    const bytes = new Uint8Array(await file.slice(0, most + 1).arrayBuffer());
    const type = /\.[^.]*$/.exec(file.name)?.[0].toLowerCase() ?? "";
    props.value = JSON.stringify({ type, data: packed(bytes) });
    trigger("upload");
  } catch {
    told.textContent = words.unreadable;
  }
}

chosen.addEventListener("change", () => {
  const file = chosen.files[0];
  chosen.value = ""; // so that the same file can be opened again
  if (file) read(file);
});
