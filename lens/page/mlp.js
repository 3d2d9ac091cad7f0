// The forward pass of the digit network: a' = activation(W a + b), layer by layer, as in model/mlp.py.
import { unpacked } from "./source.js";

const sigmoid = (z) => 1 / (1 + Math.exp(-z));

/** The error function, accurate to 1.5e-7 (Abramowitz and Stegun 7.1.26). */
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const sum = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return Math.sign(x) * (1 - sum * Math.exp(-x * x));
}

const ACTIVATIONS = {
  sigmoid,
  relu: (z) => Math.max(0, z),
  tanh: Math.tanh,
  gelu: (z) => 0.5 * z * (1 + erf(z / Math.SQRT2)),
  gelu_tanh: (z) => 0.5 * z * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (z + 0.044715 * z ** 3))),
};

/** A checkpoint's weights and biases, unpacked. */
export function networkOf({ layers }) {
  return layers.map(({ weights, biases }) => ({
    outputs: weights.shape[0], inputs: weights.shape[1], weights: unpacked(weights), biases: unpacked(biases),
  }));
}

/** One neuron's weights: its row of W. */
export function rowOf({ weights, inputs }, neuron) {
  return weights.subarray(neuron * inputs, (neuron + 1) * inputs);
}

/** Every layer's weighted sums and activations, from the pixels (no sums) to the outputs after sigmoid or softmax. */
export function forward(network, image, { activation, reading }) {
  const sums = [null], activations = [image];
  for (const [depth, layer] of network.entries()) {
    const before = activations.at(-1), z = new Float64Array(layer.outputs);
    for (let n = 0; n < layer.outputs; n++) {
      const row = rowOf(layer, n);
      let sum = layer.biases[n];
      for (let i = 0; i < layer.inputs; i++) sum += row[i] * before[i];
      z[n] = sum;
    }
    sums.push(z);
    activations.push(depth < network.length - 1 ? z.map(ACTIVATIONS[activation]) : READ[reading](z));
  }
  return { sums, activations };
}

const READ = {
  sigmoid: (z) => z.map(sigmoid),
  softmax: (z) => {
    const most = Math.max(...z), powers = z.map((v) => Math.exp(v - most)), total = powers.reduce((a, b) => a + b);
    return powers.map((power) => power / total);
  },
};
