// The logit-lens card: the next token that each layer's vectors would predict.
import { atDusk, css, inkOn, legend } from "./color.js";
import { card, make, percent, stale } from "./dom.js";
import { unpacked } from "./source.js";

/** The card; `look(position)` is called with the position that is clicked. */
export function lensCard(network, look) {
  const table = make("table", { class: "lens" });
  let cells = [];
  const element = card("lens", "The logit lens",
    "Each row decodes the residual stream after that layer as if it were the last: the most likely next token, more "
    + "strongly coloured the more confident it is; the last row is the network's output (lesson: “What is a GPT?”).",
    make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "logit lens, wider than the page" }, table),
    legend(0, ["0 %", "100 %", "probability of the top token; framed if it comes next in the text"]));

  const paint = () => {
    for (const [cell, share] of cells) {
      cell.style.background = css(share * 0.9);
      cell.style.color = inkOn(share * 0.9);
    }
  };
  atDusk(paint);

  return {
    element,
    show({ tokens, probabilities }, names) {
      const shares = unpacked(probabilities), T = names.length;
      cells = [];
      const row = (guesses, depth) => make("tr", {}, make("th", { scope: "row" }, depth ? `layer ${depth - 1}` : "embedding"),
        ...guesses.map((guess, position) => {
          const share = shares[depth * T + position], name = network.vocabulary[guess];
          const came = name === names[position + 1];
          const cell = make("td", { class: came ? "came" : "", title: `${name} ${percent(share)}`, onclick: () => look(position) }, name);
          cells.push([cell, share]);
          return cell;
        }));
      table.replaceChildren(
        make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "after"), ...names.map((name) => make("th", { scope: "col" }, name)))),
        make("tbody", {}, ...tokens.map(row)));
      paint();
      stale(false, element);
    },
  };
}
