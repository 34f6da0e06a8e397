// Elements without markup from strings, and numbers as a reader meets them.

const NBSP = "\u00a0", MINUS = "\u2212";

// el("p", { class: "note", hidden: true }, "text", child, ...): properties that are functions listen, null is left out.
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const byId = (id) => document.getElementById(id);

export const fixed = (value, digits) => value.toLocaleString("en", {
  minimumFractionDigits: digits, maximumFractionDigits: digits,
}).replace("-", MINUS);

export const whole = (value) => value.toLocaleString("en");

// A score as percent. What is not quite all or nothing is never shown as if it were.
export function percent(score) {
  if (score > 0 && score < 0.0005) return `<0.1${NBSP}%`;
  if (score < 1 && score > 0.9995) return `>99.9${NBSP}%`;
  return `${fixed(100 * score, 1)}${NBSP}%`;
}

// An interval of percents or points, its ends already times 100.
export const between = ([low, high], digits = 1) => `${fixed(low, digits)} to ${fixed(high, digits)}`;

export const milliseconds = (ms) => `${fixed(ms, ms < 10 ? 2 : ms < 100 ? 1 : 0)}${NBSP}ms`;

export function bytes(count) {
  if (count < 1e6) return `${fixed(count / 1e3, count < 1e4 ? 1 : 0)}${NBSP}kB`;
  return `${fixed(count / 1e6, count < 1e8 ? 1 : 0)}${NBSP}MB`;
}
