// Draws the network as the lessons do: a circle for each neuron, lit by its activation, and a line for each weight.
import { atDusk, css } from "./color.js";
import { rowOf } from "./mlp.js";

const WIDTH = 640, HEIGHT = 470, MOST = 16; // neurons drawn per layer: those with the largest outgoing weights (by norm)
const NS = "http://www.w3.org/2000/svg";

function shape(tag, attributes, ...children) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** The neurons of a layer that are drawn, in order. */
function shownOf(network, depth) {
  const { outputs } = network[depth - 1], all = Array.from({ length: outputs }, (_, n) => n);
  if (outputs <= MOST || depth === network.length) return all;
  const next = network[depth], weight = (n) => {
    let sum = 0;
    for (let out = 0; out < next.outputs; out++) sum += next.weights[out * next.inputs + n] ** 2;
    return sum;
  };
  const strength = all.map(weight);
  return all.sort((a, b) => strength[b] - strength[a]).slice(0, MOST).sort((a, b) => a - b);
}

/** The picture; `choose(depth, neuron)` is called on a click, `show` displays the activations for an image. */
export function networkPicture(choose) {
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "network", preserveAspectRatio: "xMinYMid meet", role: "group", "aria-label": "the network" });
  let columns = [], edges = [], last = null;

  const x = (depth, depths) => 14 + ((WIDTH - 80) * depth) / (depths - 1);
  const y = (index, count) => HEIGHT / 2 + (index - (count - 1) / 2) * Math.min(44, (HEIGHT - 30) / count);

  /** Create the circles and lines of a network; they are reused for every image. */
  function build(network) {
    columns = network.map((_, n) => shownOf(network, n + 1));
    edges = [];
    const lines = shape("g", {}), circles = shape("g", {}), depths = network.length + 1;
    columns.forEach((neurons, n) => {
      const depth = n + 1, count = neurons.length;
      neurons.forEach((neuron, index) => {
        const [cx, cy] = [x(depth, depths), y(index, count)];
        const sources = n === 0 ? [null] : columns[n - 1];
        sources.forEach((source, from) => {
          const line = shape("line", {
            x1: n === 0 ? 0 : x(n, depths) + 11, x2: cx - 11, y2: cy,
            y1: n === 0 ? HEIGHT / 2 + (cy - HEIGHT / 2) * 0.3 : y(from, sources.length),
          });
          lines.append(line);
          edges.push({ line, depth, neuron, source });
        });
        const name = depth === network.length ? `output ${neuron}` : `layer ${depth}, neuron ${neuron}`;
        const circle = shape("circle", { cx, cy, r: 11, tabindex: -1, role: "button", "aria-label": name }, shape("title", {}, name));
        circle.addEventListener("click", () => choose(depth, neuron));
        circle.addEventListener("keydown", (event) => keyed(event, n, index));
        circles.append(circle);
        if (depth === network.length) {
          circles.append(shape("text", { x: cx + 20, y: cy + 6, class: "digit", "data-digit": neuron }, String(neuron)));
        }
      });
      const hidden = network[n].outputs - count;
      if (hidden) circles.append(shape("text", { x: x(depth, depths), y: HEIGHT - 2, class: "more" }, `and ${hidden} more`));
    });
    svg.replaceChildren(lines, circles);
  }

  function keyed(event, column, index) {
    const step = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
    if (event.key === "Enter" || event.key === " ") choose(column + 1, columns[column][index]);
    else if (!step || !columns[column + step[0]]) return;
    else {
      const to = columns[column + step[0]];
      const next = Math.min(to.length - 1, Math.max(0, step[0] ? Math.round((index * (to.length - 1)) / Math.max(1, columns[column].length - 1)) : index + step[1]));
      circleOf(column + step[0], next).focus();
      choose(column + step[0] + 1, to[next]);
    }
    event.preventDefault();
  }

  const circleOf = (column, index) =>
    svg.querySelectorAll("circle")[columns.slice(0, column).reduce((sum, neurons) => sum + neurons.length, 0) + index];

  function draw() {
    const { network, activations, sums, chosen } = last;
    const passed = edges.map(({ depth, neuron, source }) => (source === null
      ? sums[depth][neuron] - network[0].biases[neuron] // the weighted sum of all pixels
      : rowOf(network[depth - 1], neuron)[source] * activations[depth - 1][source]));
    const most = new Map();
    edges.forEach(({ depth }, n) => most.set(depth, Math.max(most.get(depth) || 1e-9, Math.abs(passed[n]))));
    edges.forEach(({ line, depth, neuron }, n) => {
      const part = Math.abs(passed[n]) / most.get(depth), mine = depth === chosen.depth && neuron === chosen.neuron;
      line.style.stroke = css(passed[n] < 0 ? -0.75 : 0.75);
      line.style.strokeWidth = 0.4 + 2.6 * part;
      line.style.opacity = (mine ? 1 : 0.6) * (0.06 + 0.94 * part);
    });
    let circle = 0;
    const circles = svg.querySelectorAll("circle");
    columns.forEach((neurons, n) => {
      const values = activations[n + 1], top = Math.max(1, ...values.map(Math.abs));
      for (const neuron of neurons) {
        const element = circles[circle++], mine = n + 1 === chosen.depth && neuron === chosen.neuron;
        element.style.fill = css(values[neuron] / top);
        element.setAttribute("class", mine ? "chosen" : "");
        element.setAttribute("tabindex", mine ? 0 : -1);
        element.setAttribute("aria-pressed", mine);
        element.firstChild.textContent = `${element.getAttribute("aria-label")}: ${values[neuron].toFixed(3)}`;
      }
    });
    if (!svg.querySelector("[tabindex='0']")) circles[0].setAttribute("tabindex", 0); // the chosen one isn't drawn
    const outputs = activations.at(-1), best = outputs.indexOf(Math.max(...outputs));
    for (const text of svg.querySelectorAll(".digit")) text.classList.toggle("best", Number(text.dataset.digit) === best);
  }
  atDusk(() => last && draw());

  return {
    element: svg,
    show(shown) {
      if (last?.network !== shown.network) build(shown.network); // the largest weights can differ between checkpoints
      last = shown;
      draw();
    },
  };
}
