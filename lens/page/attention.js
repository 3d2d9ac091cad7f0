// The attention card: every head of every layer as a grid or as lines, with the dot product behind each cell.
import { atDusk, css, legend, paintGrid, styled } from "./color.js";
import { card, choice, make, roving, sized, stale, written } from "./dom.js";
import { headsOf, products, turned } from "./heads.js";
import { drawGrid, drawLines } from "./attention_pictures.js";
import { ask } from "./source.js";

const STAGES = [["scores", "scores"], ["masked", "masked"], ["pattern", "softmax"], ["weighted", "× value"]];
const MANY = 128; // up to this many tokens every head is computed; beyond, only the selected one
const SMALL = ({ n_head: heads }) => (heads > 8 ? 34 : 56); // side of a thumbnail in pixels
const MEANING = {
  scores: "q·k / √D, all pairs",
  masked: "later tokens masked with −∞",
  pattern: "weights that sum to 1 for each query",
  weighted: "weight × length of the value",
};

/** The card: `show` displays a text, `others` loads the layers that aren't selected. */
export function attentionCard(network, report) {
  const state = { layer: 0, head: 0, stage: "pattern", layout: "lesson", form: "grid", query: 0, key: 0 };
  const layers = new Map(); // layer -> [{head, stages}]
  let text = null, geometry = null, failed = false;

  const overview = make("div", { class: "heads", role: "group", "aria-label": "heads, one column per layer" });
  const thumbnails = new Map(), painted = new Set(); // canvases by "layer.head"; the ones that show this text
  overview.style.gridTemplateRows = `repeat(${network.n_head + 1}, auto)`;
  overview.append(make("span", { class: "note" }, "layer"),
    ...Array.from({ length: network.n_head }, (_, head) => make("span", { class: "note row" }, `head ${head}`)));
  for (let layer = 0; layer < network.n_layer; layer++) {
    overview.append(make("span", { class: "note" }, String(layer)));
    for (let head = 0; head < network.n_head; head++) {
      const canvas = make("canvas", { "aria-hidden": "true", width: SMALL(network), height: SMALL(network) });
      overview.append(make("button", { type: "button", class: "head", "aria-label": `layer ${layer}, head ${head}`,
        tabindex: layer + head ? -1 : 0, onclick: () => pick(layer, head) }, canvas));
      thumbnails.set(`${layer}.${head}`, canvas);
    }
  }
  const later = make("p", { class: "note", hidden: true }, `Beyond ${MANY} tokens, a head is computed only when you select it.`);
  roving(overview, () => 1, () => network.n_head);

  const named = { role: "application", "aria-label": "attention", "aria-describedby": "cell" };
  const canvas = make("canvas", { tabindex: 0, class: "picture", ...named });
  const readout = make("p", { id: "cell", class: "readout", "aria-live": "polite" });
  const strip = make("canvas", { class: "strip", "aria-hidden": "true" });
  const caption = make("p", { class: "note" });
  const legends = make("div", { class: "legends" });
  const chosen = make("div", {}, caption, make("div", { class: "scroll" }, canvas), legends, readout, strip);
  const pickOne = (name) => (value) => { state[name] = value; draw(); };
  const element = card("attention", "Attention: which tokens attend to which",
    "Each query scores every key, and softmax turns the scores into weights; later tokens are masked with −∞ "
    + "(lesson: “Attention, step by step”).",
    overview, later,
    make("div", { class: "choices" },
      choice("stage", STAGES, "pattern", pickOne("stage")),
      choice("layout", [["lesson", "lesson: one column per query"], ["paper", "papers: one row per query"]], "lesson", pickOne("layout")),
      choice("form", [["grid", "grid"], ["lines", "lines"]], "grid", pickOne("form"))),
    chosen);

  /** Load the heads of a layer, once per text. */
  async function load(layer) {
    if (!layers.has(layer)) {
      const { tokens, current, ahead } = text;
      const answer = await (layer === ahead.layer ? ahead.answer : ask("attention", { tokens, layer }));
      if (!current()) return;
      layers.set(layer, headsOf(answer));
      if (text.names.length <= MANY) for (let head = 0; head < network.n_head; head++) thumbnail(layer, head);
    }
  }

  function thumbnail(layer, head) {
    const found = layers.get(layer)?.[head];
    if (!found) return;
    const { T } = found.head, edge = SMALL(network);
    const canvas = thumbnails.get(`${layer}.${head}`);
    paintGrid(sized(canvas, edge, edge), turned(found.stages.pattern, T), T, edge / T, 1);
    painted.add(`${layer}.${head}`);
    stale(false, canvas);
  }

  /** For a new text: dim the thumbnails that will be redrawn in a moment, or clear them if they won't be. */
  function forget() {
    const all = text.names.length <= MANY;
    painted.clear();
    later.hidden = all;
    for (const canvas of thumbnails.values()) {
      if (!all) sized(canvas, SMALL(network), SMALL(network));
      stale(all, canvas);
    }
  }

  async function pick(layer, head) {
    Object.assign(state, { layer, head });
    if (!text) return;
    const { current } = text, wanted = () => current() && state.layer === layer && state.head === head;
    press();
    stale(true, chosen);
    try {
      await load(layer);
      if (!wanted()) return;
      thumbnail(layer, head);
      draw();
      if (failed) report(null);
      failed = false;
    } catch (error) {
      if (!wanted()) return;
      failed = true;
      report(error);
    }
  }

  function press() {
    for (const [name, thumb] of thumbnails) {
      const pressed = name === `${state.layer}.${state.head}`;
      thumb.parentElement.setAttribute("aria-pressed", pressed);
      thumb.parentElement.tabIndex = pressed ? 0 : -1;
    }
  }

  function draw() {
    const found = layers.get(state.layer)?.[state.head];
    press();
    if (!found) return;
    stale(false, chosen);
    const values = found.stages[state.stage], limit = largest(values);
    const picture = { values, many: MANY, limit: state.stage === "pattern" ? 1 : limit, names: text.names, ...state };
    geometry = state.form === "grid" ? drawGrid(canvas, picture) : drawLines(canvas, picture);
    caption.textContent = `Layer ${state.layer}, head ${state.head}: ` + (state.form === "lines" ? "from each query to the keys it attends to"
      : state.layout === "lesson" ? "queries across the top, keys down the side" : "keys across the top, queries down the side");
    const signed = ["scores", "masked"].includes(state.stage), end = written(picture.limit);
    legends.replaceChildren(signed ? legend(-1, [`−${end}`, end, MEANING[state.stage]]) : legend(0, ["0", end, MEANING[state.stage]]));
    explain(found, values);
  }

  /** Describe the selected cell: its numbers in a sentence, and the products that add up to its score. */
  function explain({ head, stages }) {
    const { query, key } = state, { T, D } = head;
    const cell = query * T + key, parts = products(head, query, key);
    const dot = parts.reduce((sum, part) => sum + part, 0);
    const name = (position) => make("span", { class: "token" }, text.names[position]);
    const shown = (value) => (Number.isFinite(value) ? written(value, 3).replace("-", "−") : "−∞");
    readout.replaceChildren(name(query), ` (query, position ${query}) ← `, name(key), ` (key, position ${key}): the ${D} products `
      + `below add up to q·k = ${shown(dot)}; divided by √${D}, the score is ${shown(stages.scores[cell])}`
      + (key > query ? ". This key comes later, so it is masked: weight 0." : `. Its weight after softmax is `
        + `${shown(stages.pattern[cell])}; times the value's length, ${written(head.lengths[key])}, that is `
        + `${shown(stages.weighted[cell])}.`));
    const width = Math.min(560, strip.parentElement.clientWidth), context = sized(strip, width, 54), most = largest(parts);
    parts.forEach((part, d) => {
      context.fillStyle = css(part < 0 ? -0.75 : 0.75);
      const height = (25 * part) / most;
      context.fillRect((d * width) / D, 27 - Math.max(0, height), Math.max(1, width / D - 1), Math.abs(height));
    });
    context.fillStyle = styled("line");
    context.fillRect(0, 27, width, 1);
  }

  function move(query, key) {
    if (!text) return;
    const T = text.names.length;
    if (!(query >= 0 && key >= 0 && query < T && key < T) || (query === state.query && key === state.key)) return;
    Object.assign(state, { query, key });
    draw();
  }

  for (const kind of ["pointermove", "pointerdown"]) canvas.addEventListener(kind, (event) => {
    const cell = geometry?.(event.offsetX, event.offsetY);
    if (cell) move(cell.query ?? state.query, cell.key ?? state.key);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [across, down] = step;
    if (state.layout === "lesson" || state.form === "lines") move(state.query + across, state.key + down);
    else move(state.query + down, state.key + across);
  });
  const redraw = () => {
    if (!text) return;
    for (const name of painted) thumbnail(...name.split(".").map(Number));
    draw();
  };
  atDusk(redraw);
  window.addEventListener("resize", () => text && draw());

  return {
    element, state, layers, pick,
    /** Request the selected layer before the text is shown. */
    ahead(tokens) {
      const { layer } = state, answer = ask("attention", { tokens, layer });
      answer.catch(() => {}); // reported where it is awaited
      return { layer, answer };
    },
    /** Show another text, starting with the selected layer. */
    async show(asked) {
      text = asked;
      failed = false;
      layers.clear();
      forget();
      const T = asked.names.length;
      Object.assign(state, { query: T - 1, key: Math.min(state.key, T - 1) });
      canvas.setAttribute("aria-label", `attention over ${T} tokens; arrow keys move between cells`);
      await load(state.layer);
      if (!asked.current()) return;
      thumbnail(state.layer, state.head);
      draw();
      stale(false, element);
    },
    async others() {
      if (text.names.length <= MANY) await Promise.all(Array.from({ length: network.n_layer }, (_, layer) => load(layer)));
    },
  };
}

function largest(values) {
  let most = 0;
  for (const value of values) if (Number.isFinite(value)) most = Math.max(most, Math.abs(value));
  return most || 1;
}
