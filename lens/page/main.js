// Entry point of the page: loads the network's description and builds the page for its kind.
import { about } from "./source.js";
import { digitPage } from "./digits.js";
import { textPage } from "./text.js";

const trouble = document.getElementById("trouble");

/** Show an error in one line, or hide the line if `error` is null. */
function report(error) {
  trouble.hidden = !error;
  trouble.textContent = error ? error.message : "";
}

try {
  const network = await about();
  const count = network.tallies.exact.reduce((sum, [, , total]) => sum + total, 0);
  document.title = `Look inside ${network.name}`;
  document.getElementById("name").textContent = network.name;
  document.getElementById("facts").textContent = network.kind === "text"
    ? `A transformer with ${network.n_layer} layers of ${network.n_head} heads; vectors of ${network.n_embd} dimensions, a `
      + `vocabulary of ${network.vocab_size.toLocaleString("en")} tokens, a context of ${network.context_length}; `
      + `${count.toLocaleString("en")} parameters.`
    : `A network with ${network.sizes.join("-")} neurons; ${count.toLocaleString("en")} parameters.`;
  const page = { text: textPage, digits: digitPage }[network.kind];
  await page(network, document.getElementById("views"), report);
} catch (error) {
  report(error);
  throw error;
}
