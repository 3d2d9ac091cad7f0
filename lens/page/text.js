// The page of a text network: a prompt, its tokens, and the views of what the network computes from them.
import { attentionCard } from "./attention.js";
import { barsCard } from "./bars.js";
import { atDusk, css, inkOn, legend } from "./color.js";
import { card, make, stale } from "./dom.js";
import { lensCard } from "./lens.js";
import { neighboursCard } from "./neighbours.js";
import { parametersCard } from "./parameters.js";
import { ask, live, unpacked } from "./source.js";

const PAUSE = 150; // ms after the last keystroke until the prompt is sent
const MOST_BITS = 12; // surprise at which a token's colour is strongest

/** Build the page and show the first prompt. */
export async function textPage(network, root, report) {
  const state = { tokens: [], start: 0, position: 0, turn: 0, bits: null, text: "", typed: false };
  const past = []; // {tokens, position}: the undo history
  const names = () => state.tokens.slice(state.start).map((token) => network.vocabulary[token]);
  const bars = barsCard(network, {
    choose: (token, more) => // after the selected one
      !unread() && show([...state.tokens.slice(0, state.start + state.position + 1), token], { step: !more }),
    back: () => !unread() && state.tokens.length > 1 && show(state.tokens.slice(0, -1)),
    undo,
  });
  const attention = attentionCard(network, report);
  const lens = lensCard(network, look);
  const neighbours = neighboursCard(network);

  const area = make("textarea", { id: "prompt", rows: 3, maxlength: network.longest, spellcheck: "false",
    readonly: !live, "aria-label": "prompt" });
  const chips = make("div", { class: "chips", role: "group", "aria-label": "tokens; select one to inspect it" });
  const count = make("p", { class: "note" });
  root.append(
    card("text", "A text and its tokens",
      "A text is cut into tokens, and each becomes a vector; the stronger a token's colour, the more it surprised the "
      + "network. The framed token is selected (lesson: “What is a GPT?”).", area, chips, make("div", { class: "line" }, count, legend(0, ["0", `${MOST_BITS} bits of surprise`], -1))),
    make("div", { class: "two" }, make("div", { class: "stacked" }, bars.element, neighbours.element), attention.element),
    lens.element, parametersCard(network));

  const views = [chips, bars.element, attention.element, lens.element, neighbours.element];
  const unread = () => area.value !== state.text; // the typed text has no answer yet, or an error

  let pause = 0, written = ""; // written: what the page last put into the text field
  area.addEventListener("input", () => {
    clearTimeout(pause);
    bars.halt();
    state.turn++; // a pending answer must not overwrite what is typed
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
    if (event.target === area && area.value !== written) return; // the text field undoes typing itself
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

  /** Restore what was shown before the last change; if the typed text was refused, what was shown last. */
  async function undo() {
    bars.halt();
    while (!unread() && past.length && String(past.at(-1).tokens) === String(state.tokens)) past.pop();
    const before = unread() ? state : past.at(-1);
    if (before?.tokens.length && await show(before.tokens, { position: before.position, step: false }) && before !== state) past.pop();
    bars.undoable(past.length);
  }

  /**
   * Show these tokens; false if that failed or a newer request replaced it. `text` is the typed text, or null if it wasn't
   * typed; `step`: whether Undo returns to what was shown before.
   */
  async function show(tokens, { text = null, position = null, step = true } = {}) {
    const turn = ++state.turn;
    stale(true, ...views);
    try {
      const logits = ask("logits", { tokens, position }), ahead = attention.ahead(tokens); // requested together
      const answer = await logits;
      if (turn !== state.turn) return false;
      report(null);
      if (step && state.tokens.length) past.push({ tokens: state.tokens, position: state.position });
      Object.assign(state, { tokens, start: answer.start, position: answer.position, bits: null, typed: text !== null });
      if (text === null) area.value = answer.text;
      state.text = area.value; // read back, because the field turns every line end into \n
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

  /** Load the slower views: neighbours, the other heads, the logit lens. Skipped while text is being sampled. */
  async function details({ tokens, current }) {
    await new Promise(requestAnimationFrame);
    const selected = tokens[state.start + state.position];
    if (current()) await Promise.all([neighbours.show(selected), attention.others(), read(tokens, current)]);
  }

  async function read(tokens, current) {
    const answer = await ask("lens", { tokens });
    if (!current()) return;
    state.bits = unpacked(answer.bits);
    lens.show(answer, names());
    paintChips();
  }

  /** Select a position: show its next-token scores and its token's neighbours. */
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
    chips.replaceChildren(...names().map((name, position) => make("button", {
      type: "button", class: "token", onclick: () => look(position),
    }, name)));
    const { tokens, start } = state;
    count.textContent = `${tokens.length.toLocaleString("en")} ${tokens.length === 1 ? "token" : "tokens"}`
      + (start ? `; the network sees only the last ${tokens.length - start} (its context is ${network.context_length}).` : ".");
    paintChips();
    stale(false, chips);
  }

  function paintChips() {
    for (const [position, chip] of [...chips.children].entries()) {
      const bits = position && state.bits ? state.bits[position - 1] : 0;
      const selected = position === state.position;
      chip.style.background = css(-bits / MOST_BITS);
      chip.style.color = inkOn(-bits / MOST_BITS);
      chip.tabIndex = selected ? 0 : -1;
      chip.setAttribute("aria-pressed", selected);
      chip.setAttribute("aria-label", `${chip.textContent}${position && state.bits ? `, ${bits.toFixed(1)} bits` : ""}`);
      chip.title = position && state.bits ? `${bits.toFixed(1)} bits of surprise` : "";
    }
  }

  const page = { attention, bars, show, state }; // for tests and the console
  window.page = page;
  if (live) {
    area.value = network.prompt;
    written = area.value;
    await typed(network.prompt);
  } else {
    await show(network.tokens);
  }
  state.typed = false; // the next typing is a change of its own
}
