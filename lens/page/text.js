// The page of a text network: a prompt, its tokens, and every view of what the network makes of them.
import { attentionCard } from "./attention.js";
import { barsCard } from "./bars.js";
import { atDusk, css, inkOn, legend } from "./color.js";
import { card, make, stale } from "./dom.js";
import { lensCard } from "./lens.js";
import { neighboursCard } from "./neighbours.js";
import { parametersCard } from "./parameters.js";
import { ask, live, unpacked } from "./source.js";

const PAUSE = 150; // ms without a key until what is typed is looked at
const MOST_BITS = 12; // the colour of a token is full where it cost so many

/** Build the page and show the first prompt. */
export async function textPage(network, root, report) {
  const state = { tokens: [], start: 0, position: 0, turn: 0, bits: null, text: "", typed: false };
  const past = []; // {tokens, position}: what was shown before each change
  const names = () => state.tokens.slice(state.start).map((token) => network.vocabulary[token]);
  const bars = barsCard(network, {
    choose: (token, more) => // after the one looked at
      !unread() && show([...state.tokens.slice(0, state.start + state.position + 1), token], { step: !more }),
    back: () => !unread() && state.tokens.length > 1 && show(state.tokens.slice(0, -1)),
    undo,
  });
  const attention = attentionCard(network, report);
  const lens = lensCard(network, look);
  const neighbours = neighboursCard(network);

  const area = make("textarea", { id: "prompt", rows: 3, maxlength: network.longest, spellcheck: "false",
    readonly: !live, "aria-label": "prompt" });
  const chips = make("div", { class: "chips", role: "group", "aria-label": "tokens; choose one to look at it" });
  const count = make("p", { class: "note" });
  root.append(
    card("text", "A text and its tokens",
      "A text is cut into tokens, and each becomes a vector; a token is as strongly coloured as it surprised the "
      + "network, and the one that is framed is looked at (lesson: “What is a GPT?”).", area, chips, make("div", { class: "line" }, count, legend(0, ["0", `${MOST_BITS} bits of surprise`], -1))),
    make("div", { class: "two" }, make("div", { class: "stacked" }, bars.element, neighbours.element), attention.element),
    lens.element, parametersCard(network));

  const views = [chips, bars.element, attention.element, lens.element, neighbours.element];
  const unread = () => area.value !== state.text; // what is typed has no answer yet, or an error

  let pause = 0, written = ""; // written: what the page last put into the text field
  area.addEventListener("input", () => {
    clearTimeout(pause);
    bars.halt();
    state.turn++; // an answer that is under way must not write over what is typed
    stale(true, ...views);
    pause = setTimeout(() => typed(area.value), PAUSE);
  });
  chips.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!step) return;
    event.preventDefault();
    look(Math.min(chips.children.length - 1, Math.max(0, state.position + step))).then(() =>
      chips.children[state.position]?.focus());
  });
  document.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.shiftKey || event.altKey || event.key.toLowerCase() !== "z") return;
    if (event.target === area && area.value !== written) return; // typing is undone by the text field itself
    if (!past.length) return;
    event.preventDefault();
    undo();
  });
  atDusk(paintChips);
  async function typed(text) {
    const turn = ++state.turn;
    stale(true, ...views);
    try {
      const { tokens } = await ask("tokens", { text });
      if (turn === state.turn) await show(tokens, { text, step: !state.typed });
    } catch (error) {
      if (turn === state.turn) report(error);
    }
  }

  /** Back to what was shown before the last change; if what is typed was refused, to what was shown last. */
  async function undo() {
    bars.halt();
    while (!unread() && past.length && String(past.at(-1).tokens) === String(state.tokens)) past.pop();
    const before = unread() ? state : past.at(-1);
    if (before?.tokens.length && await show(before.tokens, { position: before.position, step: false }) && before !== state) past.pop();
    bars.undoable(past.length);
  }

  /**
   * Look at these tokens from now on; false if it went wrong or something newer came. `text` is what was typed, if it was;
   * `step` says whether Undo comes back to what was shown before.
   */
  async function show(tokens, { text = null, position = null, step = true } = {}) {
    const turn = ++state.turn;
    stale(true, ...views);
    try {
      const logits = ask("logits", { tokens, position }), ahead = attention.ahead(tokens); // neither waits for the other
      const answer = await logits;
      if (turn !== state.turn) return false;
      report(null);
      if (step && state.tokens.length) past.push({ tokens: state.tokens, position: state.position });
      Object.assign(state, { tokens, start: answer.start, position: answer.position, bits: null, typed: text !== null });
      if (text === null) area.value = answer.text;
      state.text = area.value; // as the field has it: it makes every line end a \n
      if (text === null) written = state.text;
      bars.undoable(past.length);
      drawChips();
      showBars(answer);
      const asked = { tokens, ahead, names: names(), current: () => turn === state.turn };
      await attention.show(asked);
      if (turn !== state.turn) return false;
      details(asked).catch((error) => asked.current() && report(error));
      return true;
    } catch (error) {
      if (turn === state.turn) report(error);
      return false;
    }
  }

  function showBars({ logits, position }) {
    bars.show(logits, names()[position], state.tokens.length - state.start - position - 1);
  }

  /** What may come a moment later, and not at all while the text grows: neighbours, the other heads, the logit lens. */
  async function details({ tokens, current }) {
    await new Promise(requestAnimationFrame);
    const here = tokens[state.start + state.position];
    if (current()) await Promise.all([neighbours.show(here), attention.others(), read(tokens, current)]);
  }

  async function read(tokens, current) {
    const answer = await ask("lens", { tokens });
    if (!current()) return;
    state.bits = unpacked(answer.bits);
    lens.show(answer, names());
    paintChips();
  }

  /** Look at one place: what comes after it, and what its token is near to. */
  async function look(position) {
    if (unread()) return;
    bars.halt();
    state.position = position;
    paintChips();
    stale(true, bars.element);
    const { tokens, start, turn } = state, current = () => turn === state.turn && position === state.position;
    try {
      const near = neighbours.show(tokens[start + position]);
      near.catch(() => {}); // it is awaited below
      const answer = await ask("logits", { tokens, position });
      if (current()) showBars(answer);
      await near;
      if (current()) report(null);
    } catch (error) {
      if (current()) report(error);
    }
  }

  function drawChips() {
    chips.replaceChildren(...names().map((name, place) => make("button", {
      type: "button", class: "token", onclick: () => look(place),
    }, name)));
    const { tokens, start } = state;
    count.textContent = `${tokens.length.toLocaleString("en")} ${tokens.length === 1 ? "token" : "tokens"}`
      + (start ? `, of which the network sees the last ${tokens.length - start} (its context is ${network.context_length}).` : ".");
    paintChips();
    stale(false, chips);
  }

  function paintChips() {
    for (const [place, chip] of [...chips.children].entries()) {
      const bits = place && state.bits ? state.bits[place - 1] : 0;
      const here = place === state.position;
      chip.style.background = css(-bits / MOST_BITS);
      chip.style.color = inkOn(-bits / MOST_BITS);
      chip.tabIndex = here ? 0 : -1;
      chip.setAttribute("aria-pressed", here);
      chip.setAttribute("aria-label", `${chip.textContent}${place && state.bits ? `, ${bits.toFixed(1)} bits` : ""}`);
      chip.title = place && state.bits ? `${bits.toFixed(1)} bits of surprise` : "";
    }
  }

  const page = { attention, bars, show, state }; // for tests, and for the curious at the console
  window.page = page;
  if (live) {
    area.value = network.prompt;
    written = area.value;
    await typed(network.prompt);
  } else {
    await show(network.tokens);
  }
  state.typed = false; // what is typed next is a change of its own
}
