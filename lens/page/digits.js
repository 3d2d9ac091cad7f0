// The page of a digit network: draw a digit and watch every neuron, recomputed in the browser at every stroke.
import { atDusk, legend, paintGrid } from "./color.js";
import { card, make, percent, sized, slider, stale, written } from "./dom.js";
import { forward, networkOf, rowOf } from "./mlp.js";
import { networkPicture } from "./network_view.js";
import { drawingPad } from "./pad.js";
import { parametersCard } from "./parameters.js";
import { SIDE, centred, noise, rotated, shifted, shrunk } from "./picture.js";
import { ask, bytes } from "./source.js";

const LESSON = "(lesson: “But what is a neural network?”)";

/** Build the page and show the first test image. */
export async function digitPage(about, root, report) {
  const state = { image: new Float32Array(SIDE * SIDE), network: null, chosen: { depth: 1, neuron: 0 }, specimen: -1, answer: null, computed: null };
  const networks = new Map();
  const specimens = bytes(about.specimens);

  const see = (ink, width) => {
    state.image = centring.checked ? centred(ink, width) : shrunk(ink, width);
    draw();
  };
  const pad = drawingPad((ink, width) => {
    state.answer = null;
    see(ink, width);
  });
  const again = () => {
    const drawing = pad.ink();
    if (drawing) see(...drawing);
  };
  const centring = make("input", { type: "checkbox", checked: true, onchange: again });
  const verdict = make("p", { class: "note verdict", "aria-live": "polite" });
  const given = (image, { example = false, answer = null } = {}) => {
    Object.assign(state, { image, answer });
    pad.paint(image, example);
    draw();
  };
  const specimen = () => {
    state.specimen = (state.specimen + 1) % about.answers.length;
    const grey = specimens.subarray(state.specimen * 784, (state.specimen + 1) * 784);
    given(Float32Array.from(grey, (value) => value / 255), { example: true, answer: about.answers[state.specimen] });
  };
  const button = (text, act, label = text) => make("button", { type: "button", "aria-label": label, onclick: act }, text);
  const changed = (change) => () => given(change(state.image), { answer: state.answer }); // a shifted 7 is still a 7
  const buttons = make("div", { class: "buttons" },
    button("Blank", () => given(new Float32Array(SIDE * SIDE))), button("Noise", () => given(noise())), button("Test image", specimen),
    button("←", changed((image) => shifted(image, -1, 0)), "shift left"), button("→", changed((image) => shifted(image, 1, 0)), "shift right"),
    button("↑", changed((image) => shifted(image, 0, -1)), "shift up"), button("↓", changed((image) => shifted(image, 0, 1)), "shift down"),
    button("⟲", changed((image) => rotated(image, -15)), "rotate left"), button("⟳", changed((image) => rotated(image, 15)), "rotate right"));
  const input = make("canvas", { class: "input", role: "img", "aria-label": "the network's input, 28 by 28 pixels" });
  const picture = networkPicture(choose);
  const outputs = make("ol", { class: "bars digits", "aria-label": "the ten outputs" });
  const neuron = make("div", { class: "neuron" });
  const steps = slider("Step", { min: 0, max: about.steps.length - 1, step: 1, value: about.steps.indexOf(about.best),
    say: (index) => about.steps[index].toLocaleString("en"), act: (index) => at(about.steps[index]) });
  let plays = 0;
  steps.input.addEventListener("input", () => plays++);
  steps.input.disabled = about.steps.length < 2;
  const playing = button("Play", play);
  playing.disabled = about.steps.length < 2;
  const reads = about.reading === "softmax"
    ? "Softmax turns the last ten sums into probabilities, which add up to 1 whatever you draw"
    : "Each output is a separate neuron between 0 and 1: they need not add up to 1, and all ten can be near 0";

  const network = card("network", "The network", `A neuron's colour is its activation, and each line shows weight × activation; click a neuron to see what it looks for ${LESSON}.`,
    make("div", { class: "flow" }, input, picture.element), legend(-1, ["inhibits", "excites", "scaled to the strongest line into each layer"]));
  const reading = card("outputs", "What it predicts", `${reads} ${LESSON}.`, outputs);
  const chosen = card("chosen", "What a neuron looks for", `A neuron sums its inputs times its weights; blue weights excite it, orange ones inhibit it ${LESSON}.`, neuron);
  const views = [network, reading, chosen, verdict];

  root.append(make("div", { class: "three" },
    card("draw", "Draw a digit", `The drawing becomes 784 activations, 0 for black and 1 for white, scaled and centred like the training images ${LESSON}.`,
      make("div", { class: "drawing" }, pad.element, make("div", {}, verdict, buttons,
        make("label", { class: "check" }, centring, " centre the drawing, as MNIST does")))),
    network),
  make("div", { class: "two" },
    make("div", { class: "stacked" },
      reading,
      card("training", "Through training", "The same image, classified by each checkpoint of the run (lesson: “Gradient descent”).",
        steps.element, make("div", { class: "buttons" }, playing))),
    chosen),
  parametersCard(about));

  /** Switch to the network of a checkpoint; false if it is unavailable. */
  async function at(step) {
    const wanted = () => about.steps[Number(steps.input.value)] === step;
    stale(true, ...views);
    try {
      if (!networks.has(step)) networks.set(step, ask("network", { step }).then(networkOf)); // requested once
      const network = await networks.get(step);
      if (!wanted()) return true;
      state.network = network;
      report(null);
      stale(false, ...views);
      draw();
      return true;
    } catch (error) {
      networks.delete(step);
      if (wanted()) report(error);
      return false;
    }
  }

  /** Step through the checkpoints, until the slider is moved by hand or Play is clicked again. */
  async function play() {
    const mine = ++plays;
    for (let index = 0; index < about.steps.length && mine === plays; index++) {
      steps.set(index);
      if (!await at(about.steps[index])) return; // the error stays visible
      await new Promise((resolve) => setTimeout(resolve, Math.min(600, 4000 / about.steps.length)));
    }
  }

  function choose(depth, number) {
    state.chosen = { depth, neuron: number };
    draw();
  }

  function draw() {
    if (!state.network) return;
    const computed = forward(state.network, state.image, about);
    state.computed = computed;
    paintGrey(input, state.image, 4);
    picture.show({ network: state.network, ...computed, chosen: state.chosen });
    drawOutputs(computed.activations.at(-1));
    drawNeuron(computed);
  }

  function drawOutputs(values) {
    const best = values.indexOf(Math.max(...values)), { answer } = state;
    verdict.textContent = answer === null ? ""
      : `Test image ${state.specimen + 1}: label ${answer}, predicted ${best}: ${best === answer ? "correct" : "wrong"}.`;
    outputs.replaceChildren(...Array.from(values, (value, digit) => {
      const bar = make("span", { class: "bar" });
      bar.style.width = `${100 * value}%`;
      return make("li", { class: digit === best ? "best" : "" }, make("div", {}, make("span", { class: "token" }, String(digit)),
        make("span", { class: "track" }, bar), make("span", { class: "share" }, percent(value))));
    }));
  }

  function drawNeuron({ sums, activations }) {
    const { depth, neuron: n } = state.chosen, layer = state.network[depth - 1], before = activations[depth - 1];
    const row = rowOf(layer, n), passed = Float64Array.from(row, (weight, i) => weight * before[i]);
    const sum = sums[depth][n] - layer.biases[n];
    const columns = depth === 1 ? SIDE : Math.min(16, row.length), size = depth === 1 ? 8 : 18;
    const grid = (values, title) => {
      const canvas = make("canvas", { role: "img", "aria-label": title }), limit = Math.max(...values.map(Math.abs)) || 1;
      paintGrid(sized(canvas, columns * size, Math.ceil(values.length / columns) * size), values, columns, size, limit);
      return make("figure", {}, make("figcaption", {}, title), canvas, legend(-1, [`−${written(limit)}`, written(limit)]));
    };
    const what = depth === state.network.length ? `Output ${n}` : `Layer ${depth}, neuron ${n}`;
    neuron.replaceChildren(make("p", { class: "readout", "aria-live": "polite" }, `${what}: weighted sum ${signed(sum)}, bias `
      + `${signed(layer.biases[n])}, total ${signed(sums[depth][n])}; activation ${written(activations[depth][n], 3)}.`),
    make("div", { class: "grids" }, grid(Float64Array.from(row), "its weights"), grid(passed, "weights × inputs")));
  }

  atDusk(draw);
  window.page = { state, at, given, centred, forward };
  specimen();
  await at(about.best);
  const first = state.computed?.activations[1];
  if (first) choose(1, first.indexOf(Math.max(...first)));
}

function signed(value) {
  return `${value < 0 ? "−" : "+"}${written(Math.abs(value))}`;
}

/** Draw an image white on black, as in MNIST. */
function paintGrey(canvas, image, size) {
  const context = sized(canvas, SIDE * size, SIDE * size);
  image.forEach((value, index) => {
    const grey = Math.round(255 * value);
    context.fillStyle = `rgb(${grey} ${grey} ${grey})`;
    context.fillRect((index % SIDE) * size, Math.floor(index / SIDE) * size, size, size);
  });
}
