// Sampling from logits, as in model/generate.py: top-k, then top-p at the temperature, then softmax.

/** Tokens by descending logit; ties go to the lower token id. */
export function ranked(logits) {
  const order = Uint32Array.from(logits, (_, token) => token);
  return order.sort((a, b) => logits[b] - logits[a] || a - b);
}

/** softmax(logits / T) over the first `kept` tokens of the order, by rank; at T = 0 the first has probability 1. */
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
 * The distribution that the next token is sampled from. Each filter keeps a prefix of the order, so a count describes it.
 * Returns the probabilities by rank (`chances`), and how many tokens remain after top-k and after top-p.
 */
export function distribution(logits, order, { temperature, topK, topP }) {
  const afterK = Math.min(topK, order.length);
  let afterP = afterK;
  if (topP < 1) {
    const chances = Float32Array.from(softmaxOf(logits, order, afterK, temperature)); // float32, as torch sums them
    let sum = 0;
    for (afterP = 0; afterP < afterK && sum < topP; afterP++) sum += chances[afterP];
  }
  return { chances: softmaxOf(logits, order, afterP, temperature), afterK, afterP };
}

/** Sample a rank: the first whose cumulative probability exceeds `uniform`, a random number in [0, 1). */
export function drawn(chances, uniform) {
  let sum = 0;
  for (let rank = 0; rank < chances.length; rank++) {
    sum += chances[rank];
    if (sum > uniform) return rank;
  }
  return chances.length - 1;
}
