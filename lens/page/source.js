// Answers the page's requests: from the server, or, in an exported page, from the data embedded in it.

const dataElement = document.getElementById("told");
const embedded = dataElement && JSON.parse(dataElement.textContent);
const KEYS = { logits: "position", attention: "layer", neighbours: "token", network: "step" };

/** Whether the page has a server, and so a network that answers any request. */
export const live = embedded === null;

/** The network's description, from which the page is built. */
export async function about() {
  return live ? fetched("api/about", {}) : embedded.about;
}

/** Make one request; throws an Error with a message for the user. */
export async function ask(question, asked) {
  if (live) {
    const content = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(asked) };
    return fetched(`api/${question}`, content);
  }
  const key = KEYS[question];
  const answers = embedded[question] || {};
  const answer = !key ? answers : answers[asked[key] ?? Object.keys(answers).at(-1)]; // default: the last
  if (!answer) throw new Error("this exported page only has data for one prompt; run explore.py for the live page");
  return answer;
}

async function fetched(address, content) {
  let reply;
  try {
    reply = await fetch(address, content);
  } catch {
    throw new Error("no answer from the server: is explore.py still running?");
  }
  const answer = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Error(answer.error || `the server answered with status ${reply.status}`);
  return answer;
}

/** The values of a packed tensor, in row-major order. */
export function unpacked({ f32 }) {
  return new Float32Array(bytes(f32).buffer);
}

/** Decode base64. */
export function bytes(base64) {
  const text = atob(base64), content = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) content[i] = text.charCodeAt(i);
  return content;
}
