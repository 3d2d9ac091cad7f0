// Creates every element of the page; text from outside becomes a text node, never HTML.

/** Create an element. Attributes that start with "on" are listeners; true sets an attribute without a value, false omits it. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** A card: a title, one sentence that explains the view, and the view itself. */
export function card(id, title, sentence, ...children) {
  return make("section", { id, class: "card", "aria-labelledby": `${id}-title` },
    make("h2", { id: `${id}-title` }, title), make("p", { class: "sentence" }, sentence), ...children);
}

/** A labelled slider; `say` formats the value, `act` is called with the number at every move. */
export function slider(name, { min, max, step, value, say = String, act }) {
  const output = make("output", {}, say(value));
  const input = make("input", { type: "range", min, max, step, value, "aria-label": name, "aria-valuetext": say(value) });
  const moved = () => {
    output.textContent = say(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
    act(Number(input.value));
  };
  input.addEventListener("input", moved);
  const element = make("label", { class: "slider" }, make("span", {}, name), input, output);
  return { element, input, set(to) { input.value = to; moved(); } };
}

/** A choice of one: radio buttons, so that the arrow keys work. `options` are [value, label]. */
export function choice(name, options, value, act) {
  const buttons = options.map(([key, text]) => {
    const input = make("input", { type: "radio", name, value: key, checked: key === value, onchange: () => act(key) });
    return make("label", {}, input, make("span", {}, text));
  });
  return make("fieldset", { class: "choice" }, make("legend", {}, name), ...buttons);
}

/** Resize a canvas to width x height CSS pixels, sharp at any pixel ratio; returns its context. */
export function sized(canvas, width, height) {
  const ratio = Math.max(1, window.devicePixelRatio || 1);
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

/** Roving tab index: one button is in the tab order, and arrow keys move by `down()` or `across()` buttons. */
export function roving(container, down, across) {
  container.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -across(), ArrowRight: across(), ArrowUp: -down(), ArrowDown: down() };
    const buttons = [...container.querySelectorAll("button")];
    const next = buttons[buttons.indexOf(document.activeElement) + (steps[event.key] || NaN)];
    if (!next) return;
    event.preventDefault();
    for (const button of buttons) button.tabIndex = button === next ? 0 : -1;
    next.focus();
  });
}

/** Dim views that still show an earlier answer; each view's `show` undims it when the new one arrives. */
export function stale(yes, ...elements) {
  for (const element of elements) {
    element.classList.toggle("stale", yes);
    element.setAttribute("aria-busy", yes);
  }
}

/** A formatted number: 1,234 or 0.12. */
export function written(value, digits = 2) {
  return Number.isInteger(value) && Math.abs(value) >= 1000 ? value.toLocaleString("en") : value.toFixed(digits);
}

/** A share in per cent: "0 %", "< 0.1 %", "4.2 %", "42 %". */
export function percent(share) {
  if (share === 0) return "0 %";
  return share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}
