// Where answers come from: the server that this page came from, or, in an exported page, what was written into it.

const written_in = document.getElementById("told");
const told = written_in && JSON.parse(written_in.textContent);
const KEYS = { logits: "position", attention: "layer", neighbours: "token", network: "step" };

/** Whether there is a network behind the page that can be asked anything. */
export const live = told === null;

/** What the page is built from. */
export async function about() {
  return live ? fetched("api/about", {}) : told.about;
}

/** One question; throws an Error whose message is for the reader. */
export async function ask(question, asked) {
  if (live) {
    const content = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(asked) };
    return fetched(`api/${question}`, content);
  }
  const key = KEYS[question];
  const answers = told[question] || {};
  const answer = !key ? answers : answers[asked[key] ?? Object.keys(answers).at(-1)]; // nothing said: the last
  if (!answer) throw new Error("an exported page holds what one prompt needs; explore.py RUN opens the whole one");
  return answer;
}

async function fetched(address, content) {
  let reply;
  try {
    reply = await fetch(address, content);
  } catch {
    throw new Error("the network does not answer: is explore.py still running?");
  }
  const answer = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Error(answer.error || `the server answers with ${reply.status}`);
  return answer;
}

/** The numbers of a packed tensor, in rows as torch has them. */
export function unpacked({ f32 }) {
  return new Float32Array(bytes(f32).buffer);
}

/** What base64 stands for. */
export function bytes(base64) {
  const text = atob(base64), content = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) content[i] = text.charCodeAt(i);
  return content;
}
