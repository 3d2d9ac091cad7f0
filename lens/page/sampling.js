// From scores to a choice, as model/generate.py has it: top-k, then top-p at the temperature, then softmax.

/** The tokens, likeliest first; of equals the lower one. */
export function ranked(logits) {
  const order = Uint32Array.from(logits, (_, token) => token);
  return order.sort((a, b) => logits[b] - logits[a] || a - b);
}

/** softmax(logits / T) of the first `kept` of the order, by rank; at T = 0 all is on the first. */
function softmaxOf(logits, order, kept, temperature) {
  const chances = new Float64Array(kept);
  if (temperature === 0) {
    chances[0] = 1;
    return chances;
  }
  let total = 0;
  for (let rank = 0; rank < kept; rank++) {
    total += chances[rank] = Math.exp((logits[order[rank]] - logits[order[0]]) / temperature);
  }
  for (let rank = 0; rank < kept; rank++) chances[rank] /= total;
  return chances;
}

/**
 * What the next token is drawn from. Each filter keeps the first few of the order, so a number says which.
 * Returns the chances by rank, and how many tokens each filter left.
 */
export function distribution(logits, order, { temperature, topK, topP }) {
  const afterK = Math.min(topK, order.length);
  let afterP = afterK;
  if (topP < 1) {
    const chances = Float32Array.from(softmaxOf(logits, order, afterK, temperature)); // whose sums torch compares
    let sum = 0;
    for (afterP = 0; afterP < afterK && sum < topP; afterP++) sum += chances[afterP];
  }
  return { chances: softmaxOf(logits, order, afterP, temperature), afterK, afterP };
}

/** A rank, as often as it is likely: the first at which the sum of the chances exceeds `luck`, from 0 to 1. */
export function drawn(chances, luck) {
  let sum = 0;
  for (let rank = 0; rank < chances.length; rank++) {
    sum += chances[rank];
    if (sum > luck) return rank;
  }
  return chances.length - 1;
}
