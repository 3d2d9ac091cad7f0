// The drawing pad: draw a digit with the mouse, a finger or the keyboard.
import { make } from "./dom.js";
import { SIDE } from "./picture.js";

const EDGE = 280, PEN = 24, STEP = 12;

/** The pad; `inked(ink, width)` gets the ink, 0 to 1, after every stroke. */
export function drawingPad(inked) {
  const canvas = make("canvas", { class: "pad", width: EDGE, height: EDGE, tabindex: 0, role: "application",
    "aria-label": "Drawing pad: draw a digit. By keyboard: arrow keys move the pen, the space bar lowers or lifts it." });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const mark = make("span", { class: "pen", hidden: true });
  const pen = { x: EDGE / 2, y: EDGE / 2, down: false };
  let before = null, waiting = false, example = false;

  /** Report the ink, at most once per frame. */
  function notify() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      inked(inkOf(), EDGE);
    });
  }

  function inkOf() {
    const { data } = context.getImageData(0, 0, EDGE, EDGE), ink = new Float32Array(EDGE * EDGE);
    for (let index = 0; index < ink.length; index++) ink[index] = data[4 * index] < 25.5 ? 0 : data[4 * index] / 255;
    return ink;
  }

  function line(x, y) {
    if (example) context.clearRect(0, 0, EDGE, EDGE);
    example = false;
    Object.assign(context, { lineWidth: PEN, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
    context.beginPath();
    context.moveTo(before.x, before.y);
    context.lineTo(x + 0.01, y);
    context.stroke();
    before = { x, y };
    notify();
  }

  const pointOf = (event) => [event.offsetX * (EDGE / canvas.clientWidth), event.offsetY * (EDGE / canvas.clientHeight)];
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    const [x, y] = pointOf(event);
    before = { x, y };
    line(x, y);
  });
  canvas.addEventListener("pointermove", (event) => before && line(...pointOf(event)));
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { before = null; });

  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP], " ": [0, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    if (event.key === " ") pen.down = !pen.down;
    const from = { x: pen.x, y: pen.y };
    pen.x = Math.min(EDGE, Math.max(0, pen.x + step[0]));
    pen.y = Math.min(EDGE, Math.max(0, pen.y + step[1]));
    if (pen.down) {
      before = from;
      line(pen.x, pen.y);
      before = null;
    }
    showPen(true);
  });
  canvas.addEventListener("blur", () => showPen(false));

  function showPen(visible) {
    mark.hidden = !visible;
    mark.className = pen.down ? "pen down" : "pen";
    mark.style.left = `${(100 * pen.x) / EDGE}%`;
    mark.style.top = `${(100 * pen.y) / EDGE}%`;
  }

  return {
    element: make("div", { class: "padbox" }, canvas, mark),
    /** The ink on the pad, as `inked` gets it; null for an example, which the next stroke clears. */
    ink: () => (example ? null : [inkOf(), EDGE]),
    /** Show a 28 x 28 image on the pad without calling `inked`; if `wiped`, it is an example and the first stroke clears it. */
    paint(image, wiped = false) {
      example = wiped;
      for (let index = 0; index < image.length; index++) {
        const grey = Math.round(255 * image[index]);
        context.fillStyle = `rgb(${grey} ${grey} ${grey})`;
        context.fillRect((index % SIDE) * 10, Math.floor(index / SIDE) * 10, 10, 10);
      }
    },
  };
}
