// The page of a digit network: draw, and watch every neuron; it is computed here, at every stroke.
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
  const changed = (change) => () => given(change(state.image), { answer: state.answer }); // a 7 that is moved is still a 7
  const buttons = make("div", { class: "buttons" },
    button("Blank", () => given(new Float32Array(SIDE * SIDE))), button("Noise", () => given(noise())), button("A test image", specimen),
    button("←", changed((image) => shifted(image, -1, 0)), "shift left"), button("→", changed((image) => shifted(image, 1, 0)), "shift right"),
    button("↑", changed((image) => shifted(image, 0, -1)), "shift up"), button("↓", changed((image) => shifted(image, 0, 1)), "shift down"),
    button("⟲", changed((image) => rotated(image, -15)), "rotate left"), button("⟳", changed((image) => rotated(image, 15)), "rotate right"));
  const input = make("canvas", { class: "input", role: "img", "aria-label": "what the network sees, 28 by 28 pixels" });
  const picture = networkPicture(choose);
  const outputs = make("ol", { class: "bars digits", "aria-label": "the ten outputs" });
  const neuron = make("div", { class: "neuron" });
  const steps = slider("Step", { min: 0, max: about.steps.length - 1, step: 1, value: about.steps.indexOf(about.best),
    say: (place) => about.steps[place].toLocaleString("en"), act: (place) => at(about.steps[place]) });
  let plays = 0;
  steps.input.addEventListener("input", () => plays++);
  steps.input.disabled = about.steps.length < 2;
  const playing = button("Play", play);
  playing.disabled = about.steps.length < 2;
  const reads = about.reading === "softmax"
    ? "Softmax turns the ten last sums into probabilities, which add up to 1 whatever is drawn"
    : "Each output is a neuron of its own between 0 and 1: they need not add up to 1, and all ten can be dark";

  const network = card("network", "The network", `Each neuron lights up by its activation, and each line carries weight × activation; choose a neuron to see what it looks for ${LESSON}.`,
    make("div", { class: "flow" }, input, picture.element), legend(-1, ["holds down", "excites", "the strongest line into each layer is full"]));
  const reading = card("outputs", "What it reads", `${reads} ${LESSON}.`, outputs);
  const chosen = card("chosen", "What a neuron looks for", `A neuron adds up its inputs times its weights; blue weights excite it, orange ones hold it down ${LESSON}.`, neuron);
  const views = [network, reading, chosen, verdict];

  root.append(make("div", { class: "three" },
    card("draw", "Draw a digit", `The drawing becomes 784 activations, 0 for black and 1 for white, scaled and centred as the network's training images were ${LESSON}.`,
      make("div", { class: "drawing" }, pad.element, make("div", {}, verdict, buttons,
        make("label", { class: "check" }, centring, " centre what is drawn, as MNIST does")))),
    network),
  make("div", { class: "two" },
    make("div", { class: "stacked" },
      reading,
      card("training", "Through training", "The same image, read by the network as it was at each checkpoint (lesson: “Gradient descent”).",
        steps.element, make("div", { class: "buttons" }, playing))),
    chosen),
  parametersCard(about));

  /** Reads with the network of a checkpoint; false if it can't be had. */
  async function at(step) {
    const wanted = () => about.steps[Number(steps.input.value)] === step;
    stale(true, ...views);
    try {
      if (!networks.has(step)) networks.set(step, ask("network", { step }).then(networkOf)); // asked for once
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

  /** Every checkpoint in turn, until the slider is moved by hand or it is played again. */
  async function play() {
    const mine = ++plays;
    for (let place = 0; place < about.steps.length && mine === plays; place++) {
      steps.set(place);
      if (!await at(about.steps[place])) return; // the error stays in view
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
      : `Test image ${state.specimen + 1}: a ${answer}, read as ${best}: ${best === answer ? "right" : "wrong"}.`;
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
      + `${signed(layer.biases[n])}, together ${signed(sums[depth][n])}; activation ${written(activations[depth][n], 3)}.`),
    make("div", { class: "grids" }, grid(Float64Array.from(row), "its weights"), grid(passed, "weights × what comes in")));
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

/** An image as MNIST has it, white on black. */
function paintGrey(canvas, image, size) {
  const context = sized(canvas, SIDE * size, SIDE * size);
  image.forEach((value, place) => {
    const grey = Math.round(255 * value);
    context.fillStyle = `rgb(${grey} ${grey} ${grey})`;
    context.fillRect((place % SIDE) * size, Math.floor(place / SIDE) * size, size, size);
  });
}
