// Computes attention from a head's queries and keys, in the same four stages as lens/capture.py.
import { unpacked } from "./source.js";

/** The heads of a layer: each with T queries and T keys of D dimensions, the length of each value, and the four stages. */
export function headsOf({ queries, keys, lengths }) {
  const [count, T, D] = queries.shape;
  const [q, k, value] = [queries, keys, lengths].map(unpacked);
  return Array.from({ length: count }, (_, h) => {
    const part = (values, size) => values.subarray(h * size, (h + 1) * size);
    const head = { T, D, q: part(q, T * D), k: part(k, T * D), lengths: part(value, T) };
    let stages = null; // computed on first use
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

/** The four stages, each T x T with a row per query: scores, masked, pattern (softmax), weighted by the value's length. */
function stagesOf(head) {
  const { T, lengths } = head;
  const scores = scoresOf(head);
  const masked = scores.map((score, cell) => (cell % T > Math.floor(cell / T) ? -Infinity : score));
  const pattern = new Float64Array(T * T);
  for (let i = 0; i < T; i++) {
    let most = -Infinity, total = 0;
    for (let j = 0; j <= i; j++) most = Math.max(most, masked[i * T + j]);
    for (let j = 0; j <= i; j++) total += pattern[i * T + j] = Math.exp(masked[i * T + j] - most);
    for (let j = 0; j <= i; j++) pattern[i * T + j] /= total;
  }
  return { scores, masked, pattern, weighted: pattern.map((weight, cell) => weight * lengths[cell % T]) };
}

/** The transpose of a T x T grid. */
export function turned(grid, T) {
  return grid.map((_, cell) => grid[(cell % T) * T + Math.floor(cell / T)]);
}
