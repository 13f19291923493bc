// Rows in: the last rows of a table become a window, by the rules of the artifact's run.py.
//
// 1.  A table is a header and rows: CSV in UTF-8 with commas, packed or not.  Blank lines are skipped.
// 2.  Columns are found by name; their order and other columns do not matter.
// 3.  The time is the first column named like one (date, timestamp, time, datetime, ds, ts in any case), else
//     the first whose last cell is a date.  It may be missing: then rows count as steps.
// 4.  Times ascend, all with a zone or all without, in one notation, and follow each other by the artifact's
//     step.  Rows of another step are refused, whatever is filled.
// 5.  With missing = error the last L rows must be whole, and no others are looked at.  With ffill or
//     interpolate missing rows and empty cells among the last 2 L steps are filled, and counted.

import { TIME_NAMES, isEmpty, parseNumber, readTimes } from "./cells.js";
import { parseCsv, readText } from "./csv.js";
import { findStep } from "./steps.js";
import { InputError, general, quoted } from "./text.js";

export const POLICIES = ["error", "ffill", "interpolate"];
const FILL_HINT = "repair the file, or fill it: choose ffill or interpolate";
const FORMULA_STARTS = "[=+\\-@\\t\\r\\n\\uff1d\\uff0b\\uff0d\\uff20]";
const FORMULA = new RegExp(`^(?=\\s*${FORMULA_STARTS})|(?<=[;|])(?=\\s*${FORMULA_STARTS})`, "g");

/** A name as a header has it: an apostrophe before what a spreadsheet would run as a formula. */
export const headerCell = (name) => name.replace(FORMULA, "'");

/**
 * The window at the end of a file.
 *
 * @returns {{values: Float64Array[], missing: string, filledRows: number, filledCells: number,
 *   timeColumn: ?string, last: ?Time, notation: ?object}} values: D variates of L steps, oldest first.
 * @throws {InputError} names file, line and column.
 */
export async function readHistory(file, task, missing = task.missing ?? POLICIES[0]) {
  const { header, rows } = parseCsv(file.name, await readText(file));
  const needed = missing === "error" ? task.lookback : 2 * task.lookback;
  return readWindow(new Table(file.name, header, rows.slice(-needed)), task, missing);
}

class Table {
  constructor(name, header, rows) {
    this.name = name;
    this.header = header.map((column) => column.trim());
    this.rows = rows;
  }

  /** `past.csv line 12, column 'load'`. */
  where(index, column = null) {
    const place = `${this.name} line ${this.rows[index].line}`;
    return column === null ? place : `${place}, column ${quoted(this.header[column])}`;
  }

  cells(column) {
    return this.rows.map((row) => row.cells[column]);
  }
}

function readWindow(table, task, missing) {
  const columns = findColumns(table, task.variates);
  checkShape(table);
  if (!table.rows.length || (missing === "error" && table.rows.length < task.lookback)) {
    throw tooShort(table, task, table.rows.length, "rows");
  }
  const values = columns.map((column) => readValues(table, column, missing));
  const history = { missing, timeColumn: null, last: null, notation: null };
  let places = table.rows.map((_, index) => index);
  const timeAt = timeColumn(table, new Set(columns));
  if (timeAt !== null) {
    const { notation, times } = timesOf(table, timeAt);
    Object.assign(history, { timeColumn: table.header[timeAt], notation, last: times.at(-1) });
    places = placesOf(table, times, findStep(task), missing);
  }
  return { ...history, ...takeWindow(table, task, missing, values, places) };
}

function findColumns(table, variates) {
  return variates.map((name) => {
    const found = table.header.flatMap((column, at) =>
      column === name.trim() || column === headerCell(name) ? [at] : [],
    );
    if (found.length !== 1) {
      throw new InputError(
        `${table.name}: column ${quoted(name)} occurs ${found.length} times in the header, expected once; ` +
          `the columns are ${table.header.slice(0, 12).map(quoted).join(", ") || "none"}`,
      );
    }
    return found[0];
  });
}

function checkShape(table) {
  table.rows.forEach(({ cells }, index) => {
    if (cells.length !== table.header.length) {
      throw new InputError(
        `${table.where(index)} has ${cells.length} fields, expected ${table.header.length}`,
      );
    }
  });
}

function readValues(table, column, missing) {
  return table.cells(column).map((cell, index) => {
    if (isEmpty(cell) && missing !== "error") return NaN;
    const value = parseNumber(cell);
    if (value === null) {
      const hint = isEmpty(cell) ? `; ${FILL_HINT}` : "";
      const got = quoted(cell.slice(0, 40));
      throw new InputError(`${table.where(index, column)}: expected a number, got ${got}${hint}`);
    }
    return value;
  });
}

/** Rule 3. */
function timeColumn(table, taken) {
  const free = table.header.map((_, at) => at).filter((at) => !taken.has(at));
  const named = free.find((at) => TIME_NAMES.has(table.header[at].toLowerCase()));
  if (named !== undefined) return named;
  const last = table.rows.at(-1).cells;
  return free.find((at) => readTimes([last[at]], { unix: false }).times.length) ?? null;
}

function timesOf(table, column) {
  const cells = table.cells(column);
  const { notation, times } = readTimes(cells, { unix: TIME_NAMES.has(table.header[column].toLowerCase()) });
  if (times.length < cells.length) {
    const expected = times.length ? "a time in the notation of the rows before" : "a time";
    const got = quoted(cells[times.length].slice(0, 40));
    throw new InputError(
      `${table.where(times.length, column)}: expected ${expected}, got ${got}; ` +
        "write ISO 8601 such as 2024-01-31 13:00:00, or Unix time",
    );
  }
  const mixed = times.findIndex((time) => (time.offset === null) !== (times[0].offset === null));
  if (mixed !== -1) {
    throw new InputError(`${table.where(mixed)}: times with and without a time zone are mixed`);
  }
  return { notation, times };
}

/** The place of each row on the regular axis, from 0 on. */
function placesOf(table, times, step, missing) {
  if (step !== null) checkStep(table, times, step);
  const places = [0];
  for (let index = 1; index < times.length; index += 1) {
    const [before, after] = [times[index - 1], times[index]];
    const refuse = (expected) => {
      const gap = general(seconds(before, after));
      throw new InputError(
        `${table.where(index)}: timestamp ${after} is ${gap} s after the row before, ${expected}`,
      );
    };
    if (after.instant <= before.instant) refuse("expected a later one: sort the rows, no time twice");
    const steps = step === null ? 1 : step.between(before, after);
    if (!steps) refuse(`expected ${step}`);
    if (steps > 1 && missing === "error") refuse(`expected ${step}; ${FILL_HINT}`);
    places.push(places.at(-1) + steps);
  }
  return places;
}

const seconds = (before, after) => Number(after.instant - before.instant) / 1e6;

/** No gap is commoner than the step: otherwise it is another step, not rows that are missing. */
function checkStep(table, times, step) {
  const common = new Map(); // 1: one step; otherwise how many steps, or a gap that is none
  for (let index = 1; index < times.length; index += 1) {
    const [before, after] = [times[index - 1], times[index]];
    if (after.instant <= before.instant) continue;
    const gap = seconds(before, after);
    const kind = step.between(before, after) ?? `${gap} s`;
    common.set(kind, { count: (common.get(kind)?.count ?? 0) + 1, gap: common.get(kind)?.gap ?? gap });
  }
  const most = [...common.values()].reduce((best, each) => (each.count > best.count ? each : best), {
    count: 0,
  });
  if (most.count > Math.max(1, common.get(1)?.count ?? 0)) {
    throw new InputError(
      `${table.name}: most rows are ${general(most.gap)} s apart, the artifact's step is ${step}; ` +
        "resample the rows to that step",
    );
  }
}

/** Puts the rows at their places, fills, and keeps the last L steps. */
function takeWindow(table, task, missing, values, places) {
  const { lookback } = task;
  const span = missing === "error" ? lookback : 2 * lookback;
  const covered = places.at(-1) + 1;
  if (covered < lookback) throw tooShort(table, task, covered, covered === places.length ? "rows" : "steps");
  const length = Math.min(span, covered);
  const there = new Uint8Array(length);
  const axes = values.map(() => new Float64Array(length).fill(NaN));
  places.forEach((place, row) => {
    const at = place - covered + length;
    if (at < 0) return;
    there[at] = 1;
    axes.forEach((axis, variate) => { axis[at] = values[variate][row]; });
  });
  const start = length - lookback;
  const inWindow = [...there.keys()].slice(start);
  const counts = {
    filledRows: inWindow.filter((at) => !there[at]).length,
    filledCells: axes.reduce(
      (sum, axis) => sum + inWindow.filter((at) => there[at] && Number.isNaN(axis[at])).length, 0,
    ),
  };
  axes.forEach((axis, variate) => {
    const known = axis.findIndex((value) => !Number.isNaN(value));
    if (known === -1 || known > start) {
      throw new InputError(
        `${table.name}: variate ${quoted(task.variates[variate])} has no value in the last ${length} steps ` +
          "from which the lookback's first could be filled",
      );
    }
    fill(axis, known, missing);
  });
  return { ...counts, values: axes.map((axis) => axis.slice(start)) };
}

/** Fills the gaps of an axis whose value at `first` is known; after the last known value that repeats. */
function fill(axis, first, missing) {
  for (let known = first; known < axis.length; ) {
    let next = known + 1;
    while (next < axis.length && Number.isNaN(axis[next])) next += 1;
    const line = missing === "interpolate" && next < axis.length;
    const slope = line ? (axis[next] - axis[known]) / (next - known) : 0;
    for (let at = known + 1; at < next && at < axis.length; at += 1) {
      axis[at] = axis[known] + slope * (at - known);
    }
    known = next;
  }
}

function tooShort(table, task, found, what) {
  return new InputError(
    `${table.name} has ${found} ${what}, expected at least ${task.lookback} (the lookback)`,
  );
}
