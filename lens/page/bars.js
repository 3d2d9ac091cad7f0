// The next-token card: probabilities as bars that follow the sliders, and buttons that sample from them.
import { card, make, percent, slider, stale } from "./dom.js";
import { distribution, drawn, ranked } from "./sampling.js";
import { live, unpacked } from "./source.js";

const SHOWN = 12;

/** The stops of the top-k slider: 1, 2, 3, 5, 8, 10, 20, 50, 100 ... up to `all`. */
function stops(all) {
  const few = [1, 2, 3, 5, 8];
  for (let ten = 10; ten < all; ten *= 10) few.push(ten, 2 * ten, 5 * ten);
  return [...few.filter((k) => k < all), all];
}

/**
 * The card; `choose(token, more)` appends a token (`more`: it belongs to the same sample as the one before), `back()`
 * removes the last one, `undo()` restores the text before the last change.
 */
export function barsCard(network, { choose, back, undo }) {
  const ks = stops(network.vocab_size);
  const sampling = { temperature: 1, topK: network.vocab_size, topP: 1 };
  const list = make("ol", { class: "bars", "aria-label": "most likely next tokens" });
  const left = make("p", { class: "note", "aria-live": "polite" });
  let logits = null, order = null, plain = null, found = null, writing = 0;

  const change = (name, of = (value) => value) => (value) => { sampling[name] = of(value); draw(); };
  const sliders = [
    slider("Temperature", { min: 0, max: 3, step: 0.05, value: 1, say: (v) => v.toFixed(2), act: change("temperature") }),
    slider("Top-k", { min: 0, max: ks.length - 1, step: 1, value: ks.length - 1, act: change("topK", (index) => ks[index]),
      say: (index) => (ks[index] === network.vocab_size ? "all" : ks[index].toLocaleString("en")) }),
    slider("Top-p", { min: 0.01, max: 1, step: 0.01, value: 1, say: (v) => v.toFixed(2), act: change("topP") }),
  ];

  function draw() {
    if (!logits) return;
    found = distribution(logits, order, sampling);
    const most = Math.max(found.chances[0], plain[0]);
    const focused = [...list.children].findIndex((row) => row.contains(document.activeElement));
    list.replaceChildren(...Array.from(order.subarray(0, SHOWN), (token, rank) => row(token, rank, most)));
    list.children[focused]?.firstChild.focus();
    const kept = sampling.temperature === 0 ? 1 : found.afterP;
    const rest = found.chances.slice(SHOWN).reduce((sum, chance) => sum + chance, 0);
    left.textContent = `${kept.toLocaleString("en")} of ${order.length.toLocaleString("en")} tokens can be sampled`
      + `${kept > SHOWN ? `; those after the top ${SHOWN} have ${percent(rest)} in total` : ""}.`;
  }

  function row(token, rank, most) {
    const kept = rank < found.afterP;
    const chance = kept ? found.chances[rank] : 0;
    const cut = rank >= found.afterK ? "cut by top-k" : "cut by top-p";
    const bar = make("span", { class: "bar" }), ghost = make("span", { class: "ghost" });
    bar.style.width = `${(100 * chance) / most}%`;
    ghost.style.width = `${(100 * plain[rank]) / most}%`;
    const name = network.vocabulary[token];
    const button = make("button", {
      type: "button", disabled: !live, class: kept ? "" : "cut", "data-token": token,
      "aria-label": `${name}: ${kept ? percent(chance) : cut}. Append it`, onclick: () => choose(token),
    }, make("span", { class: "token" }, name), make("span", { class: "track" }, ghost, bar),
    make("span", { class: "share" }, kept ? percent(chance) : cut));
    return make("li", {}, button);
  }

  /** Sample and append `count` tokens, until `halt`. */
  async function write(count) {
    if (!found) return;
    const mine = ++writing;
    stop.disabled = false;
    for (let n = 0; n < count && mine === writing; n++) {
      if (await choose(order[drawn(found.chances, Math.random())], n > 0) === false) break;
    }
    if (mine === writing) halt();
  }

  function halt() {
    writing++;
    stop.disabled = true;
  }

  const button = (text, act, off = !live) => make("button", { type: "button", disabled: off, onclick: act }, text);
  const stop = button("Stop", halt, true), undoing = button("Undo", undo, true);
  undoing.title = "restore the text before the last change (Ctrl+Z)";
  const cut = make("p", { class: "note" });
  const buttons = make("div", { class: "buttons" }, button("Sample a token", () => write(1)),
    button("Sample 40", () => write(40)), stop, button("Remove last", () => { halt(); back(); }), undoing);
  const where = make("p", { class: "note" });
  const element = card("next", "The next token",
    "The last vector gives every token a score, and softmax with a temperature turns the scores into probabilities; "
    + "click a token to append it (lesson: “What is a GPT?”).",
    where, make("div", { class: "sliders" }, ...sliders.map((s) => s.element)), list, left, cut, buttons,
    make("p", { class: "legend" }, make("span", { class: "swatch bar" }), "with the sliders' settings",
      make("span", { class: "swatch ghost" }), "at temperature 1, unfiltered"));
  if (!live) element.append(make("p", { class: "note" }, "This is an exported page: the sliders work, but to "
    + "sample text, run explore.py RUN."));

  return {
    element, halt, sampling, sliders,
    /** Enable Undo if there is an earlier text to restore. */
    undoable(yes) { undoing.disabled = !live || !yes; },
    /** The distribution after the filters, for tests and the console: [token, probability] by rank. */
    chances: () => Array.from(found.chances, (chance, rank) => [order[rank], chance]),
    /** Show new scores, after the token `after`; `following` tokens come after it and would be replaced. */
    show(packed, after, following) {
      logits = unpacked(packed);
      order = ranked(logits);
      plain = distribution(logits, order, { temperature: 1, topK: order.length, topP: 1 }).chances;
      where.replaceChildren("after ", make("span", { class: "token" }, after), ":");
      const them = following === 1 ? "the token that follows" : `the ${following.toLocaleString("en")} tokens that follow`;
      cut.textContent = following && live ? `Appending here replaces ${them}; Undo restores them.` : "";
      draw();
      stale(false, element);
    },
  };
}
