// Numbers, times and shapes as people read them; and the elements of the page. Text is never taken for HTML.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(value) {
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit && Math.abs(value) < 100 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

export const whole = (value) => Math.round(value).toLocaleString("en");

export const count = (value, noun) => `${whole(value)} ${noun}${value === 1 ? "" : "s"}`;

export function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e9) return `${(value / 1e9).toFixed(size < 1e10 ? 2 : 1)} G`;
  if (size >= 1e6) return `${(value / 1e6).toFixed(size < 1e7 ? 2 : 1)} M`;
  if (size >= 1e4) return `${(value / 1e3).toFixed(1)} k`;
  return size >= 100 || Number.isInteger(value) ? whole(value) : value.toFixed(size < 10 ? 2 : 1);
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${(value * 1e3).toFixed(value < 0.01 ? 2 : value < 0.1 ? 1 : 0)} ms`;
  return value < 100 ? `${value.toFixed(2)} s` : `${Math.round(value)} s`;
}

export function number(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e12) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(3) : Number(value.toPrecision(5)).toString();
}

export function ago(unixSeconds, nowSeconds) {
  const passed = Math.max(0, nowSeconds - unixSeconds);
  if (passed < 60) return `${Math.round(passed)} s ago`;
  if (passed < 3600) return `${Math.round(passed / 60)} min ago`;
  return passed < 172800 ? `${Math.round(passed / 3600)} h ago` : `${Math.round(passed / 86400)} d ago`;
}

export const clock = (unixSeconds) => new Date(unixSeconds * 1000).toLocaleTimeString("en-GB");

export const shape = (sizes) => (sizes.length ? sizes.join(" × ") : "scalar");

// The time that a part of the requests took at most: within the bucket it is taken to grow evenly.
export function percentile(counts, bounds, part) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (!total) return null;
  let left = part * total;
  for (let index = 0; index < counts.length; index += 1) {
    if (left <= counts[index]) {
      const low = index ? bounds[index - 1] : 0;
      const high = index < bounds.length ? bounds[index] : bounds[bounds.length - 1];
      return low + (high - low) * (left / counts[index]);
    }
    left -= counts[index];
  }
  return bounds[bounds.length - 1];
}

const SVG = "http://www.w3.org/2000/svg";
const IN_SVG = new Set(["svg", "g", "rect", "circle", "line", "text", "title", "path"]);

// An element with attributes (functions are listeners) and children (elements and text).
export function h(name, attributes = {}, ...children) {
  const made = IN_SVG.has(name) ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

// Sets the text of an element where that has changed, so that nothing is drawn in vain.
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Facts by their names: [name, text]; those without a text are left out.
export const facts = (pairs) =>
  pairs.filter(([, text]) => text).map(([name, text]) => h("div", {}, h("dt", {}, name), h("dd", { class: "number" }, text)));
