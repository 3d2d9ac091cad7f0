// Draws one attention head: a grid with a cell per query and key, or lines from each query to its keys.
import { css, paintGrid, styled } from "./color.js";
import { sized } from "./dom.js";
import { turned } from "./heads.js";

const WIDEST = 520;
const MONO = "ui-monospace, 'DejaVu Sans Mono', Menlo, monospace";

/** A token's label, cut to `most` characters and to `room` pixels in the context's font. */
function brief(context, name, most, room = Infinity) {
  const signs = [...name];
  const cut = (count) => (count < signs.length ? `${signs.slice(0, count - 1).join("")}…` : name);
  let count = Math.min(signs.length, most);
  while (count > 1 && context.measureText(cut(count)).width > room) count--;
  return cut(count);
}

/** Draw the grid; returns a function from a point to its cell. */
export function drawGrid(canvas, { values, limit, names, layout, query, key }) {
  const T = names.length, room = Math.min(WIDEST, canvas.parentElement.clientWidth || WIDEST);
  const font = 11, measured = canvas.getContext("2d");
  measured.font = `${font}px ${MONO}`;
  const labels = names.map((name) => brief(measured, name, 12));
  const margin = 10 + Math.max(...labels.map((label) => Math.max(6.8 * label.length, measured.measureText(label).width)));
  const size = Math.max(2, Math.min(26, Math.floor((room - margin - 4) / T)));
  const context = sized(canvas, margin + T * size + 4, margin + T * size + 4);
  const lesson = layout === "lesson";
  paintGrid(context, lesson ? turned(values, T) : values, T, size, limit, margin, margin);
  const [column, row] = lesson ? [query, key] : [key, query];
  context.font = `${Math.min(font, size + 1)}px ${MONO}`;
  context.textBaseline = "middle";
  const every = Math.max(1, Math.ceil(8 / size)); // skip labels that would overlap
  for (let n = 0; n < T; n++) {
    const middle = margin + (n + 0.5) * size - 0.5;
    if (n % every === 0 || n === row) label(context, labels[n], margin - 5, middle, 0, n === row);
    if (n % every === 0 || n === column) label(context, labels[n], middle, margin - 5, Math.PI / 2, n === column, labels[n].length < 3);
  }
  context.strokeStyle = styled("ink");
  context.lineWidth = 2;
  context.strokeRect(margin + column * size - 1, margin + row * size - 1, size + 1, size + 1);
  return (x, y) => {
    const [across, down] = [x, y].map((at) => Math.floor((at - margin) / size));
    return lesson ? { query: across, key: down } : { query: down, key: across };
  };
}

function label(context, text, x, y, angle, strong, upright = false) {
  context.save();
  context.translate(x, upright ? y - 4 : y);
  context.rotate(upright ? 0 : angle);
  context.textAlign = upright ? "center" : "right";
  context.fillStyle = styled(strong ? "ink" : "soft");
  context.fillText(text, 0, 0);
  context.restore();
}

/**
 * Draw the lines, queries on the left and keys on the right; beyond `many` tokens only the selected query's.
 * Returns a function from a point to its query or key.
 */
export function drawLines(canvas, { values, limit, names, many, query, key }) {
  const T = names.length, height = Math.max(7, Math.min(22, 560 / T));
  const width = Math.min(WIDEST, canvas.parentElement.clientWidth || WIDEST), side = Math.min(130, width / 3);
  const context = sized(canvas, width, T * height + 24), middle = (position) => 22 + (position + 0.5) * height;
  const line = (from, to, faint) => {
    const value = values[from * T + to], part = Math.abs(value) / limit;
    if (!Number.isFinite(value) || part < 0.01) return;
    context.globalAlpha = faint ? 0.25 : 1;
    context.strokeStyle = css(value < 0 ? -0.8 : 0.8);
    context.lineWidth = Math.max(0.3, 7 * part * (height / 22 + 0.3));
    context.beginPath();
    context.moveTo(side, middle(from));
    context.bezierCurveTo(width / 2, middle(from), width / 2, middle(to), width - side, middle(to));
    context.stroke();
  };
  for (let from = 0; from < T && T <= many; from++) for (let to = 0; to < T; to++) if (from !== query) line(from, to, true);
  for (let to = 0; to < T; to++) line(query, to, false);
  context.globalAlpha = 1;
  context.textBaseline = "middle";
  context.font = `${Math.min(12, height + 1)}px ${MONO}`;
  names.forEach((name, position) => {
    const text = brief(context, name, 15, side - 10);
    for (const [x, align, strong] of [[side - 8, "right", position === query], [width - side + 8, "left", position === key]]) {
      context.textAlign = align;
      context.fillStyle = styled(strong ? "ink" : "soft");
      context.fillText(text, x, middle(position));
    }
  });
  context.font = "italic 11px system-ui, sans-serif";
  context.fillStyle = styled("soft");
  context.textAlign = "right";
  context.fillText("query", side - 8, 9);
  context.textAlign = "left";
  context.fillText("attends to key", width - side + 8, 9);
  return (x, y) => {
    const position = Math.floor((y - 22) / height);
    return x < width / 2 ? { query: position } : { key: position };
  };
}
