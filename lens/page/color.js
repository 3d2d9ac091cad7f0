// The colour scales of every view: blue and orange for signed numbers, blue alone for shares, background at zero.
import { make, sized } from "./dom.js";

const SCHEMES = {
  light: { paper: [255, 255, 255], plus: [[120, 174, 232], [12, 84, 168]], minus: [[247, 174, 104], [186, 74, 0]] },
  dark: { paper: [26, 31, 40], plus: [[52, 104, 172], [142, 196, 255]], minus: [[158, 84, 20], [255, 180, 96]] },
};
const KINDS = {
  light: ["#0c54a8", "#e08214", "#1b7f6b", "#a6447a", "#5aa9e6", "#c9a400", "#7a6bb8", "#6b7280", "#b3541e", "#3d8c40", "#c2185b", "#4e5d94"],
  dark: ["#6fb1ff", "#f5a24b", "#4fc3a9", "#e389bd", "#a9d3fb", "#e8cf55", "#b3a5ee", "#9aa3b5", "#e08a5a", "#86d07a", "#ff8ab5", "#8fa0e0"],
};
const night = window.matchMedia("(prefers-color-scheme: dark)");
const watchers = [];
const colors = new Map(); // cached until the colour scheme changes

night.addEventListener("change", () => {
  colors.clear();
  watchers.forEach((draw) => draw());
});

function once(name, work) {
  if (!colors.has(name)) colors.set(name, work());
  return colors.get(name);
}

/** Call `draw` whenever the colour scheme changes between light and dark. */
export function atDusk(draw) {
  watchers.push(draw);
}

const scheme = () => SCHEMES[night.matches ? "dark" : "light"];

/** The nth categorical colour. */
export function kind(n) {
  const kinds = KINDS[night.matches ? "dark" : "light"];
  return kinds[n % kinds.length];
}

/** A colour from the style sheet: the custom property --name. */
export function styled(name) {
  return once(name, () => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
}

/** [red, green, blue] for a number in [-1, 1]: background at 0, one hue per sign, steeper near 0. */
export function shade(value) {
  const { paper, plus, minus } = scheme();
  const [middle, end] = value < 0 ? minus : plus;
  const t = Math.min(1, Math.abs(value)) ** 0.7;
  const [from, to, part] = t < 0.5 ? [paper, middle, t * 2] : [middle, end, t * 2 - 1];
  return from.map((c, i) => Math.round(c + (to[i] - c) * part));
}

/** The same for CSS. */
export function css(value) {
  return Number.isNaN(value) ? "transparent" : `rgb(${shade(value).join(" ")})`;
}

/** A text colour that is readable on `css(value)`. */
export function inkOn(value) {
  const [r, g, b] = shade(value);
  return 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#10141c" : "#ffffff";
}

/** A colour scale from `low` to `high` (within [-1, 1]), labelled with `words`: [low end, high end, meaning (optional)]. */
export function legend(low, words, high = 1) {
  const canvas = make("canvas", { "aria-hidden": "true", "data-low": low, "data-high": high });
  paintLegend(canvas);
  return make("p", { class: "legend" }, words[0], canvas, words[1], ...(words[2] ? [make("span", {}, words[2])] : []));
}

function paintLegend(canvas) {
  const context = sized(canvas, 120, 10), low = Number(canvas.dataset.low), high = Number(canvas.dataset.high);
  for (let x = 0; x < 120; x++) {
    context.fillStyle = css(low + ((high - low) * x) / 119);
    context.fillRect(x, 0, 1.5, 10);
  }
}

atDusk(() => document.querySelectorAll(".legend canvas").forEach(paintLegend));

/** Paint numbers from -limit to limit as a grid with cells of `size` pixels; non-finite ones get the colour "hidden". */
export function paintGrid(context, values, columns, size, limit, left = 0, top = 0) {
  const rows = Math.ceil(values.length / columns), steps = 255;
  const shades = once("all shades", () => Array.from({ length: 2 * steps + 1 }, (_, n) => shade(n / steps - 1)));
  const hidden = styled("hidden").match(/[0-9a-f]{2}/gi).map((pair) => parseInt(pair, 16));
  const pixels = new ImageData(columns, rows);
  values.forEach((value, index) => {
    const part = Math.min(1, Math.max(-1, value / limit));
    pixels.data.set(Number.isFinite(value) ? shades[Math.round(steps * (part + 1))] : hidden, 4 * index);
    pixels.data[4 * index + 3] = 255;
  });
  const small = make("canvas", { width: columns, height: rows });
  small.getContext("2d").putImageData(pixels, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, left, top, columns * size, rows * size);
  if (size < 10) return;
  context.fillStyle = styled("card"); // a line between the cells
  for (let column = 1; column <= columns; column++) context.fillRect(left + column * size - 1, top, 1, rows * size);
  for (let row = 1; row <= rows; row++) context.fillRect(left, top + row * size - 1, columns * size, 1);
}
