// Where the parameters are: one bar, stacked by what the matrices are for.
import { atDusk, kind } from "./color.js";
import { card, make } from "./dom.js";

const MATRICES = [
  [/^embedding\.token/, "Embedding"],
  [/^embedding\.position/, "Positions"],
  [/\.query\.weight$/, "Query"],
  [/\.key\.weight$/, "Key"],
  [/\.value\.weight$/, "Value (Value-down)"],
  [/\.out\.weight$/, "Output (Value-up)"],
  [/mlp\.layers\.0\.weight$/, "Up-projection"],
  [/mlp\.layers\.1\.weight$/, "Down-projection"],
  [/^unembedding/, "Unembedding"],
  [/^layers\.(\d+)\.weight$/, "Weights of layer "],
  [/./, "Biases"],
];

/** The parameters by kind: what it is called, its product spelled out, its count. */
function tallied(parameters) {
  const kinds = new Map();
  for (const { name, shape, count } of parameters) {
    const [pattern, title] = MATRICES.find(([pattern]) => pattern.test(name));
    const number = name.match(pattern)[1];
    const full = number === undefined ? title : title + (Number(number) + 1);
    const group = kinds.get(full) || { title: full, shapes: [], count: 0 };
    group.shapes.push(shape.join(" × "));
    group.count += count;
    kinds.set(full, group);
  }
  const place = ({ title }) => MATRICES.findIndex(([, start]) => title.startsWith(start));
  const rest = kinds.get("Biases");
  if (rest && parameters.some(({ name }) => name.startsWith("embedding"))) rest.title = "Biases and layer norms";
  return [...kinds.values()].sort((a, b) => place(a) - place(b));
}

/** 128 × 128 × 4 matrices, or the number alone where the shapes differ. */
function product({ shapes }) {
  if (new Set(shapes).size > 1) return `${shapes.length} parts`;
  return shapes.length > 1 ? `${shapes[0]} × ${shapes.length} layers` : shapes[0];
}

/** The card. */
export function parametersCard({ parameters, kind: network }) {
  const kinds = tallied(parameters), total = kinds.reduce((sum, { count }) => sum + count, 0);
  const bar = make("div", { class: "stack", role: "img", "aria-label": `${total.toLocaleString("en")} parameters, stacked by kind` });
  const parts = [], swatches = [];
  const rows = kinds.map((group) => {
    const share = `${((100 * group.count) / total).toFixed(1)} %`;
    const part = make("span", { title: `${group.title}: ${group.count.toLocaleString("en")}, ${share}` });
    part.style.flexGrow = group.count;
    const swatch = make("span", { class: "swatch" });
    parts.push(part);
    swatches.push(swatch);
    return make("tr", {}, make("th", { scope: "row" }, swatch, group.title), make("td", {}, product(group)),
      make("td", {}, group.count.toLocaleString("en")), make("td", {}, share));
  });
  bar.append(...parts);
  const paint = () => [parts, swatches].forEach((list) => list.forEach((element, n) => { element.style.background = kind(n); }));
  paint();
  atDusk(paint);
  const foot = make("tr", {}, make("th", { scope: "row" }, "all"), make("td", {}), make("td", {}, total.toLocaleString("en")), make("td", {}, "100 %"));
  const tied = network === "text" && !parameters.some(({ name }) => name.startsWith("unembedding"));
  const lesson = network === "text" ? "What is a GPT?" : "But what is a neural network?";
  return card("parameters", "Where the parameters are",
    `Everything the network has learned lies in these matrices${tied ? "; the embedding is the unembedding too" : ""} `
    + `(lesson: “${lesson}”).`, bar,
    make("div", { class: "scroll" }, make("table", { class: "tally" },
      make("thead", {}, make("tr", {}, ...["matrix", "shape", "parameters", "share"].map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows), make("tfoot", {}, foot))));
}
