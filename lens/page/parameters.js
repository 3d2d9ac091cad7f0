// The parameters card: a stacked bar and a table of parameters by matrix, in both counts of training/tally.py.
import { atDusk, kind } from "./color.js";
import { card, make } from "./dom.js";

const COUNTS = {
  exact: "all parameters",
  lessons: "counted as in the lessons (no biases, norms or positions; separate unembedding)",
};
const people = (count) => count.toLocaleString("en");
const share = (part, all) => `${((100 * part) / all).toFixed(1)} %`;

/** The card. A tally is rows of [name, product, total]; if both counts agree, only one bar is shown. */
export function parametersCard({ tallies, kind: network }) {
  const same = JSON.stringify(tallies.exact) === JSON.stringify(tallies.lessons);
  const counts = same ? ["exact"] : ["exact", "lessons"], products = new Map();
  for (const count of counts.toReversed()) for (const [name, product] of tallies[count]) products.set(name, product);
  const order = [...products.keys()], painted = []; // the lessons' matrices first, then what they omit
  const total = Object.fromEntries(counts.map((count) => [count, tallies[count].reduce((sum, row) => sum + row[2], 0)]));
  const found = (count, name) => tallies[count].find((row) => row[0] === name)?.[2];
  const colored = (element, name) => { painted.push([element, order.indexOf(name)]); return element; };

  const bars = counts.map((count) => {
    const bar = make("div", { class: "stack", role: "img", "aria-label": `${people(total[count])} parameters, stacked by kind, ${COUNTS[count]}` });
    for (const [name, , part] of tallies[count]) {
      const piece = colored(make("span", { title: `${name}: ${people(part)}, ${share(part, total[count])}` }), name);
      piece.style.flexGrow = part;
      bar.append(piece);
    }
    return make("figure", { "data-count": count }, make("figcaption", {}, same ? `${people(total[count])} parameters` : `${people(total[count])}, ${COUNTS[count]}`), bar);
  });
  const cells = (name) => counts.flatMap((count) => {
    const part = found(count, name);
    return part === undefined ? ["–", ""] : [people(part), share(part, total[count])];
  });
  const rows = order.map((name) => make("tr", {}, make("th", { scope: "row" }, colored(make("span", { class: "swatch" }), name), name),
    make("td", {}, products.get(name).replaceAll(" x ", " × ")), ...cells(name).map((cell) => make("td", {}, cell))));
  const heads = ["matrix", "product", ...(same ? ["parameters", "share"] : ["all parameters", "share", "lessons’ count", "share"])];
  const foot = make("tr", {}, make("th", { scope: "row" }, "total"), make("td", {}),
    ...counts.flatMap((count) => [make("td", {}, people(total[count])), make("td", {}, "100 %")]));
  const paint = () => painted.forEach(([element, n]) => { element.style.background = kind(n); });
  paint();
  atDusk(paint);
  const tied = network === "text" && found("exact", "Unembedding") === undefined;
  const lesson = network === "text" ? "Attention, step by step" : "But what is a neural network?";
  return card("parameters", "Where the parameters are",
    `Everything the network has learned is in these matrices${tied ? "; the embedding is also the unembedding" : ""} `
    + `(lesson: “${lesson}”).`, ...bars,
    make("div", { class: "scroll" }, make("table", { class: "tally" },
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows), make("tfoot", {}, foot))));
}
