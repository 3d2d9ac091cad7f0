// The neighbours card: the tokens nearest to one in embedding space, by dot product and by cosine.
import { card, make, stale, written } from "./dom.js";
import { ask } from "./source.js";

/** The card; `show(token)` requests and shows a token's neighbours. */
export function neighboursCard(network) {
  const whose = make("p", { class: "note" });
  const lists = make("div", { class: "pair" });
  const element = card("neighbours", "Neighbours of a token",
    "Tokens whose vectors point in similar directions are similar to the network; select another token above "
    + "(lesson: “What is a GPT?”).", whose, lists);
  let last = null;

  const list = (title, found) => {
    const most = Math.max(...found.map(([, score]) => Math.abs(score))) || 1;
    return make("div", {}, make("h3", {}, title), make("ol", { class: "bars short" }, ...found.map(([token, score]) => {
      const bar = make("span", { class: score < 0 ? "bar minus" : "bar" });
      bar.style.width = `${(100 * Math.abs(score)) / most}%`;
      return make("li", {}, make("div", {}, make("span", { class: "token" }, network.vocabulary[token]),
        make("span", { class: "track" }, bar), make("span", { class: "share" }, written(score))));
    })));
  };

  return {
    element,
    async show(token) {
      last = token;
      stale(true, element);
      const { dot, cosine } = await ask("neighbours", { token });
      if (token !== last) return;
      whose.replaceChildren("nearest to ", make("span", { class: "token" }, network.vocabulary[token]), ":");
      lists.replaceChildren(list("by cosine", cosine), list("by dot product", dot));
      stale(false, element);
    },
  };
}
