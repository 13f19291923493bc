// Steps: the artifact's step, counted between two rows and added to the last one.
//
// A step is a fixed time, a number of months (rows at their starts or at their ends), or a business day.

import { Time } from "./cells.js";
import { InputError, general } from "./text.js";

const MICROSECONDS = {
  us: 1n, ms: 1_000n, s: 1_000_000n, min: 60_000_000n, h: 3_600_000_000n, D: 86_400_000_000n,
  W: 604_800_000_000n,
};
const MONTHS = { M: 1, Q: 3, Y: 12 };
const LAST_YEAR = 9999;
const DAY_MS = 86_400_000;

class FixedStep {
  constructor(size) {
    this.size = size; // microseconds, BigInt
  }

  toString() {
    return `${general(Number(this.size) / 1e6)} s`;
  }

  /** Whole steps from one row to a later one, null where it is not on the axis. */
  between(before, after) {
    const passed = after.instant - before.instant;
    return passed % this.size ? null : Number(passed / this.size);
  }

  /** The time `steps` after a row, at its offset from UTC; null beyond the calendar. */
  after(last, steps) {
    return inCalendar(new Time(last.wall + BigInt(steps) * this.size, last.offset));
  }
}

class MonthStep {
  constructor(months, atEnd) {
    this.months = months;
    this.atEnd = atEnd;
  }

  toString() {
    return `${this.months} months, on the ${this.atEnd ? "last" : "first"} day of one`;
  }

  between(before, after) {
    const months = monthCount(after.date) - monthCount(before.date);
    const onAxis = [before.date, after.date].every(
      (date) => date.getUTCDate() === this.#day(date.getUTCFullYear(), date.getUTCMonth() + 1),
    );
    const fits = onAxis && before.timeOfDay === after.timeOfDay && months % this.months === 0;
    return fits ? months / this.months : null;
  }

  after(last, steps) {
    const months = monthCount(last.date) + steps * this.months;
    const [year, month] = [Math.floor(months / 12), (months % 12) + 1];
    return year > LAST_YEAR ? null : last.on(year, month, this.#day(year, month));
  }

  #day(year, month) {
    return this.atEnd ? new Date(Date.UTC(year, month, 0)).getUTCDate() : 1;
  }
}

class BusinessStep {
  toString() {
    return "one business day";
  }

  between(before, after) {
    const [first, second] = [before.date, after.date];
    if (before.timeOfDay !== after.timeOfDay || !isBusinessDay(first) || !isBusinessDay(second)) return null;
    let steps = 0;
    for (let at = first.getTime(); at < second.getTime(); at += DAY_MS) steps += isBusinessDay(new Date(at));
    return steps;
  }

  after(last, steps) {
    let at = last.date.getTime();
    while (!isBusinessDay(new Date(at))) at += DAY_MS;
    for (let left = steps; left > 0; ) {
      at += DAY_MS;
      left -= isBusinessDay(new Date(at));
    }
    const day = new Date(at);
    return inCalendar(last.on(day.getUTCFullYear(), day.getUTCMonth() + 1, day.getUTCDate()));
  }
}

const monthCount = (date) => 12 * date.getUTCFullYear() + date.getUTCMonth();
const isBusinessDay = (date) => date.getUTCDay() % 6 !== 0;
const inCalendar = (time) => (time.date.getUTCFullYear() > LAST_YEAR ? null : time);

/** The step of the manifest's task; null where the data had no times, or none of these steps. */
export function findStep(task) {
  if (task.step_seconds) return new FixedStep(BigInt(Math.round(task.step_seconds * 1e6)));
  const found = /^(\d{0,6})([A-Za-z]+)(-[A-Z]{3})?$/.exec(task.frequency ?? "");
  if (!found) return null;
  const [count, unit] = [Number(found[1] || 1), found[2]];
  if (Object.hasOwn(MICROSECONDS, unit) && count) return new FixedStep(BigInt(count) * MICROSECONDS[unit]);
  if (Object.hasOwn(MONTHS, unit[0]) && ["S", "E"].includes(unit.slice(1)) && count) {
    return new MonthStep(count * MONTHS[unit[0]], unit[1] === "E");
  }
  return unit === "B" && count === 1 ? new BusinessStep() : null;
}

/** `[H]` times after the last row, or null where time or step is not known. */
export function future(history, task) {
  const step = findStep(task);
  if (step === null || history.last === null) return null;
  return Array.from({ length: task.horizon }, (_, ahead) => {
    const time = step.after(history.last, ahead + 1);
    if (time === null) {
      throw new InputError(`the forecast after ${history.last} would run beyond the year ${LAST_YEAR}`);
    }
    return time;
  });
}
