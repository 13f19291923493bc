// Rows out: the forecast as CSV, stamped where time and step are known, else numbered from 1; as run.py does.

import { headerCell } from "./rows.js";

/** The text of a CSV: the time's column or `step` first, then the variates; numbers to the last bit. */
export function toCsv(history, times, values, task) {
  let name = times ? history.timeColumn : "step";
  while (task.variates.includes(name)) name += "_";
  const stamps = Array.from(values[0], (_, step) => (times ? history.notation.render(times[step]) : step + 1));
  const lines = [
    [name, ...task.variates].map(headerCell),
    ...stamps.map((stamp, step) => [stamp, ...values.map((row) => row[step])]),
  ];
  return lines.map((cells) => `${cells.map(cell).join(",")}\n`).join("");
}

function cell(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
