/* A Stop that is clicked before the server has answered.

   Gradio's page cancels a run by its number, which the answer to queue/join tells. Without one it sends a
   cancellation of nothing, and drops the rows of a run that goes on. Here such a cancellation waits until
   the number is known. Runs once, before anything can be clicked; serves whatever has `cancels`. */

const send = window.fetch;

/* Function -> the number of its run, as long as the page has not learned it. */
const unknown = new Map();

function numberOf(fn) {
  let number = unknown.get(fn);
  if (!number) {
    number = {};
    number.promise = new Promise((resolve) => { number.resolve = resolve; });
    unknown.set(fn, number);
  }
  return number;
}

async function join(resource, options) {
  const { fn_index: fn } = JSON.parse(options.body);
  if (unknown.get(fn)?.told) unknown.delete(fn);
  const number = numberOf(fn);
  try {
    const answer = await send(resource, options);
    const told = await answer.clone().json().catch(() => null); // a proxy may say something else
    if (told) {
      number.resolve(told.event_id);
      // With nothing left to wait for, the page has read it before anything else can be clicked.
      answer.json = async () => told;
    }
    return answer;
  } finally {
    number.resolve(); // of none, where the run was refused
    number.told = true;
    setTimeout(() => { if (unknown.get(fn) === number) unknown.delete(fn); });
  }
}

async function cancel(resource, options) {
  const body = JSON.parse(options.body);
  body.event_id ??= await numberOf(body.fn_index).promise;
  return body.event_id ? send(resource, { ...options, body: JSON.stringify(body) }) : new Response("{}");
}

/* Sent after each cancellation, and does nothing any more. Until it is answered the page takes the run for
   one that goes on, so nobody waits for that. */
const reset = async () => new Response("{}");

window.fetch = (resource, options) => {
  if (options?.method === "POST" && typeof options.body === "string") {
    const { pathname } = new URL(resource, document.baseURI);
    if (pathname.endsWith("/queue/join")) return join(resource, options);
    if (pathname.endsWith("/cancel")) return cancel(resource, options);
    if (pathname.endsWith("/reset")) return reset();
  }
  return send(resource, options);
};
