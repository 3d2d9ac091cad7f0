// Attention by the formula, from one head's queries and keys: the same four stages as lens/capture.py.
import { unpacked } from "./source.js";

/** The heads of a layer: T queries and T keys of D numbers each, how long each place's value is, and the four stages. */
export function headsOf({ queries, keys, lengths }) {
  const [count, T, D] = queries.shape;
  const [q, k, value] = [queries, keys, lengths].map(unpacked);
  return Array.from({ length: count }, (_, h) => {
    const part = (numbers, size) => numbers.subarray(h * size, (h + 1) * size);
    const head = { T, D, q: part(q, T * D), k: part(k, T * D), lengths: part(value, T) };
    let stages = null; // computed when they are looked at
    return { head, get stages() { return (stages ??= stagesOf(head)); } };
  });
}

/** The D products whose sum is the dot product of a query and a key. */
export function products({ q, k, D }, query, key) {
  return Float64Array.from({ length: D }, (_, d) => q[query * D + d] * k[key * D + d]);
}

function scoresOf({ q, k, T, D }) {
  const scores = new Float64Array(T * T), root = Math.sqrt(D);
  for (let i = 0; i < T; i++) {
    for (let j = 0; j < T; j++) {
      let sum = 0;
      for (let d = 0; d < D; d++) sum += q[i * D + d] * k[j * D + d];
      scores[i * T + j] = sum / root;
    }
  }
  return scores;
}

/** All four stages, a row of T for each query: scores, masked, pattern (softmax), weighted by the value's length. */
function stagesOf(head) {
  const { T, lengths } = head;
  const scores = scoresOf(head);
  const masked = scores.map((score, place) => (place % T > Math.floor(place / T) ? -Infinity : score));
  const pattern = new Float64Array(T * T);
  for (let i = 0; i < T; i++) {
    let most = -Infinity, total = 0;
    for (let j = 0; j <= i; j++) most = Math.max(most, masked[i * T + j]);
    for (let j = 0; j <= i; j++) total += pattern[i * T + j] = Math.exp(masked[i * T + j] - most);
    for (let j = 0; j <= i; j++) pattern[i * T + j] /= total;
  }
  return { scores, masked, pattern, weighted: pattern.map((share, place) => share * lengths[place % T]) };
}

/** Rows become columns. */
export function turned(grid, T) {
  return grid.map((_, place) => grid[(place % T) * T + Math.floor(place / T)]);
}
