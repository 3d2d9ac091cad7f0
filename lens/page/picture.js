// A drawn digit becomes what MNIST would have made of it, as data/picture.py does; and what else can be done to images.

export const SIDE = 28;

/** To the nearest whole number, halves to the even one, as Python rounds. */
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

/** For each of `to` pixels the first of `from` that it is made of, and their weights. */
function mixture(from, to) {
  const scale = from / to, [filter, support] = scale > 1 ? [box, 0.5] : [bicubic, 2], wide = Math.max(1, scale);
  return Array.from({ length: to }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support * wide + 0.5));
    const last = Math.min(from, Math.trunc(centre + support * wide + 0.5));
    const weights = Array.from({ length: last - first }, (_, n) => filter((n + first - centre + 0.5) / wide));
    const total = weights.reduce((a, b) => a + b, 0);
    return [first, weights.map((weight) => weight / total)];
  });
}

/** An image in another size: the mean of the pixels that come together, or bicubic where it grows. */
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

/** Crop to the ink, scale its longer side to 20 pixels, centre it by its mass in 28 x 28; a blank stays blank. */
export function centred(ink, width) {
  const height = ink.length / width, image = new Float32Array(SIDE * SIDE);
  let [top, bottom, left, right] = [height, -1, width, -1];
  ink.forEach((value, place) => {
    if (!value) return;
    const x = place % width, y = Math.floor(place / width);
    [top, bottom, left, right] = [Math.min(top, y), Math.max(bottom, y), Math.min(left, x), Math.max(right, x)];
  });
  if (bottom < 0) return image;
  const [w, h] = [right - left + 1, bottom - top + 1], scale = 20 / Math.max(w, h);
  const crop = new Float32Array(w * h);
  for (let y = 0; y < h; y++) crop.set(ink.subarray((top + y) * width + left, (top + y) * width + left + w), y * w);
  const [nw, nh] = [w, h].map((edge) => Math.max(1, rounded(edge * scale)));
  const small = resized(crop, w, h, nw, nh), most = Math.max(...small, 1e-6);
  let [mass, mx, my] = [0, 0, 0];
  small.forEach((value, place) => {
    const grey = small[place] = Math.min(1, Math.max(0, value / most));
    [mass, mx, my] = [mass + grey, mx + grey * (place % nw), my + grey * Math.floor(place / nw)];
  });
  const inside = (value, edge) => Math.min(Math.max(value, 0), SIDE - edge);
  const x0 = inside(rounded(SIDE / 2 - mx / mass), nw), y0 = inside(rounded(SIDE / 2 - my / mass), nh);
  for (let y = 0; y < nh; y++) image.set(small.subarray(y * nw, (y + 1) * nw), (y0 + y) * SIDE + x0);
  return image;
}

/** The whole drawing, wherever the ink is. */
export function shrunk(ink, width) {
  return resized(ink, width, ink.length / width, SIDE, SIDE);
}

/** The same picture moved; what leaves the frame is lost, what comes in is black. */
export function shifted(image, right, down) {
  return image.map((_, place) => {
    const x = (place % SIDE) - right, y = Math.floor(place / SIDE) - down;
    return x >= 0 && y >= 0 && x < SIDE && y < SIDE ? image[y * SIDE + x] : 0;
  });
}

/** The same picture turned about its middle, between pixels the mean of the four around. */
export function rotated(image, degrees) {
  const angle = (degrees * Math.PI) / 180, [cos, sin] = [Math.cos(angle), Math.sin(angle)], middle = (SIDE - 1) / 2;
  const at = (x, y) => (x >= 0 && y >= 0 && x < SIDE && y < SIDE ? image[y * SIDE + x] : 0);
  return image.map((_, place) => {
    const dx = (place % SIDE) - middle, dy = Math.floor(place / SIDE) - middle;
    const x = cos * dx + sin * dy + middle, y = cos * dy - sin * dx + middle;
    const x0 = Math.floor(x), y0 = Math.floor(y), [fx, fy] = [x - x0, y - y0];
    return (1 - fy) * ((1 - fx) * at(x0, y0) + fx * at(x0 + 1, y0)) + fy * ((1 - fx) * at(x0, y0 + 1) + fx * at(x0 + 1, y0 + 1));
  });
}

/** Pixels drawn evenly from black to white. */
export function noise() {
  return Float32Array.from({ length: SIDE * SIDE }, Math.random);
}
