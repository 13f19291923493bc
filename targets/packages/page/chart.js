// The picture: the end of the history, the forecast after it, and its interval where there is one.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { top: 12, right: 12, bottom: 28, left: 56 };
const HEIGHT = 320;

/**
 * Draws into `svg`, as wide as it is shown.
 *
 * @param {{past: number[], forecast: number[], low: ?number[], high: ?number[], label: (step: number) => string}}
 *   series `label` names a step, 0 the first of the forecast and -1 the last of the past.
 */
export function draw(svg, series) {
  const width = Math.max(280, svg.clientWidth || 280);
  const { past, forecast, low, high } = series;
  const values = [past, forecast, low ?? [], high ?? []].flatMap((each) => Array.from(each));
  const [bottom, top] = padded(Math.min(...values), Math.max(...values));
  const first = -past.length;
  const x = linear([first, forecast.length - 1], [MARGIN.left, width - MARGIN.right]);
  const y = linear([bottom, top], [HEIGHT - MARGIN.bottom, MARGIN.top]);
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.replaceChildren(
    ...ticks(bottom, top).flatMap((value) => [
      element("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
      text(MARGIN.left - 6, y(value) + 4, "end", shortNumber(value)),
    ]),
    ...labels(series, first, width, x),
    element("line", { class: "now", x1: x(-0.5), x2: x(-0.5), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
    ...(low ? [element("path", { class: "interval", d: band(low, high, x, y) })] : []),
    element("path", { class: "past", d: line(past, first, x, y) }),
    // From the last known value on, so that no gap looks like missing data.
    element("path", { class: "forecast", d: line([past.at(-1), ...forecast], -1, x, y) }),
  );
  return { stepAt: (pixel) => clamp(Math.round(x.inverse(pixel)), first, forecast.length - 1) };
}

/** Two or three names of steps under the axis, as many as fit. */
function labels(series, first, width, x) {
  const last = series.forecast.length - 1;
  const inner = width > 520 ? [[0, "middle"]] : [];
  return [[first, "start"], ...inner, [last, "end"]].map(([step, anchor]) =>
    text(x(step), HEIGHT - 8, anchor, series.label(step)),
  );
}

function line(values, start, x, y) {
  return Array.from(values, (value, at) => `${at ? "L" : "M"}${x(start + at)} ${y(value)}`).join("");
}

function band(low, high, x, y) {
  const back = Array.from(low, (value, at) => `L${x(at)} ${y(value)}`).reverse();
  return `${line(high, 0, x, y)}${back.join("")}Z`;
}

function linear([from, to], [start, end]) {
  const scale = (end - start) / (to - from || 1);
  const place = (value) => Number((start + (value - from) * scale).toFixed(2));
  place.inverse = (pixel) => from + (pixel - start) / scale;
  return place;
}

function padded(low, high) {
  const room = (high - low) * 0.05 || Math.abs(high) * 0.05 || 1;
  return [low - room, high + room];
}

/** About five round numbers from `low` to `high`. */
function ticks(low, high) {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((size) => size * power >= rough) * power;
  const count = Math.floor(high / step) - Math.ceil(low / step) + 1;
  return Array.from({ length: count }, (_, at) => (Math.ceil(low / step) + at) * step);
}

/** A number for reading: at most six digits. */
export const shortNumber = (value) => String(Number(value.toPrecision(6)));

function text(x, y, anchor, content) {
  const label = element("text", { x, y, "text-anchor": anchor });
  label.textContent = content;
  return label;
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return made;
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
