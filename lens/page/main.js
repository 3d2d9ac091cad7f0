// The page begins: which kind of network is it, and what can be seen of it.
import { about } from "./source.js";
import { digitPage } from "./digits.js";
import { textPage } from "./text.js";

const trouble = document.getElementById("trouble");

/** Say in a line what went wrong, or that nothing does any more. */
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
    ? `A transformer of ${network.n_layer} layers with ${network.n_head} heads each; vectors of ${network.n_embd} `
      + `numbers, ${network.vocab_size.toLocaleString("en")} tokens, ${network.context_length} of them in view; `
      + `${count.toLocaleString("en")} parameters.`
    : `A network of ${network.sizes.join("-")} neurons; ${count.toLocaleString("en")} parameters.`;
  const page = { text: textPage, digits: digitPage }[network.kind];
  await page(network, document.getElementById("views"), report);
} catch (error) {
  report(error);
  throw error;
}
