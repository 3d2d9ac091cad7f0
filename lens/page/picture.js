// Image operations: scale and centre a drawing as MNIST does (same as data/picture.py), shift, rotate, noise.

export const SIDE = 28;

/** Round to the nearest integer, halves to even, as in Python. */
function rounded(x) {
  const below = Math.floor(x), rest = x - below;
  return rest > 0.5 || (rest === 0.5 && below % 2) ? below + 1 : below;
}

const box = (x) => (x > -0.5 && x <= 0.5 ? 1 : 0);
const bicubic = (x) => {
  const a = Math.abs(x);
  if (a < 1) return (1.5 * a - 2.5) * a * a + 1;
  return a < 2 ? ((-0.5 * a + 2.5) * a - 4) * a + 2 : 0;
};

/** For each of `to` output pixels: the index of its first input pixel (of `from`), and the weights from there on. */
function mixture(from, to) {
  const scale = from / to, [filter, support] = scale > 1 ? [box, 0.5] : [bicubic, 2], wide = Math.max(1, scale);
  return Array.from({ length: to }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support * wide + 0.5));
    const last = Math.min(from, Math.trunc(centre + support * wide + 0.5));
    const weights = Array.from({ length: last - first }, (_, n) => filter((n + first - centre + 0.5) / wide));
    const total = weights.reduce((a, b) => a + b, 0);
    return [first, weights.map((weight) => weight / total)];
  });
}

/** Resize an image: box filter (the mean) to shrink, bicubic to enlarge. */
function resized(image, width, height, newWidth, newHeight) {
  const across = mixture(width, newWidth), down = mixture(height, newHeight);
  const wide = new Float32Array(newWidth * height), out = new Float32Array(newWidth * newHeight);
  for (let y = 0; y < height; y++) across.forEach(([first, weights], x) => {
    wide[y * newWidth + x] = weights.reduce((sum, weight, n) => sum + weight * image[y * width + first + n], 0);
  });
  down.forEach(([first, weights], y) => {
    for (let x = 0; x < newWidth; x++) {
      out[y * newWidth + x] = weights.reduce((sum, weight, n) => sum + weight * wide[(first + n) * newWidth + x], 0);
    }
  });
  return out;
}

/** Crop to the ink, scale the longer side to 20 pixels, place its centre of mass at the centre of 28 x 28; a blank stays blank. */
export function centred(ink, width) {
  const height = ink.length / width, image = new Float32Array(SIDE * SIDE);
  let [top, bottom, left, right] = [height, -1, width, -1];
  ink.forEach((value, index) => {
    if (!value) return;
    const x = index % width, y = Math.floor(index / width);
    [top, bottom, left, right] = [Math.min(top, y), Math.max(bottom, y), Math.min(left, x), Math.max(right, x)];
  });
  if (bottom < 0) return image;
  const [w, h] = [right - left + 1, bottom - top + 1], scale = 20 / Math.max(w, h);
  const crop = new Float32Array(w * h);
  for (let y = 0; y < h; y++) crop.set(ink.subarray((top + y) * width + left, (top + y) * width + left + w), y * w);
  const [nw, nh] = [w, h].map((edge) => Math.max(1, rounded(edge * scale)));
  const small = resized(crop, w, h, nw, nh), most = Math.max(...small, 1e-6);
  let [mass, mx, my] = [0, 0, 0];
  small.forEach((value, index) => {
    const grey = small[index] = Math.min(1, Math.max(0, value / most));
    [mass, mx, my] = [mass + grey, mx + grey * (index % nw), my + grey * Math.floor(index / nw)];
  });
  const inside = (value, edge) => Math.min(Math.max(value, 0), SIDE - edge);
  const x0 = inside(rounded(SIDE / 2 - mx / mass), nw), y0 = inside(rounded(SIDE / 2 - my / mass), nh);
  for (let y = 0; y < nh; y++) image.set(small.subarray(y * nw, (y + 1) * nw), (y0 + y) * SIDE + x0);
  return image;
}

/** The drawing scaled to 28 x 28, not centred. */
export function shrunk(ink, width) {
  return resized(ink, width, ink.length / width, SIDE, SIDE);
}

/** Shift an image; pixels that leave the frame are lost, new ones are black. */
export function shifted(image, right, down) {
  return image.map((_, index) => {
    const x = (index % SIDE) - right, y = Math.floor(index / SIDE) - down;
    return x >= 0 && y >= 0 && x < SIDE && y < SIDE ? image[y * SIDE + x] : 0;
  });
}

/** Rotate an image about its centre, with bilinear interpolation. */
export function rotated(image, degrees) {
  const angle = (degrees * Math.PI) / 180, [cos, sin] = [Math.cos(angle), Math.sin(angle)], middle = (SIDE - 1) / 2;
  const at = (x, y) => (x >= 0 && y >= 0 && x < SIDE && y < SIDE ? image[y * SIDE + x] : 0);
  return image.map((_, index) => {
    const dx = (index % SIDE) - middle, dy = Math.floor(index / SIDE) - middle;
    const x = cos * dx + sin * dy + middle, y = cos * dy - sin * dx + middle;
    const x0 = Math.floor(x), y0 = Math.floor(y), [fx, fy] = [x - x0, y - y0];
    return (1 - fy) * ((1 - fx) * at(x0, y0) + fx * at(x0 + 1, y0)) + fy * ((1 - fx) * at(x0, y0 + 1) + fx * at(x0 + 1, y0 + 1));
  });
}

/** Uniform random pixels. */
export function noise() {
  return Float32Array.from({ length: SIDE * SIDE }, Math.random);
}
