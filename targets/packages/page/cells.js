// What one cell says: nothing, a number, or a time; the rules and the messages of the artifact's run.py.
//
//   empty   one of EMPTY, in this spelling, blanks around it aside
//   number  decimal digits with point and exponent, finite; no inf, no 1_000, no other digits
//   time    ISO 8601, a date with slashes or dots, or Unix time, each with its time of day and zone

const EMPTY = new Set([
  "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
  "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
]);
export const TIME_NAMES = new Set(["date", "timestamp", "time", "datetime", "ds", "ts"]);

const UNIX_UNITS = { s: 1n, ms: 1_000n, us: 1_000_000n, ns: 1_000_000_000n };
const UNIX_SECONDS = [631_152_000, 4_102_444_800]; // 1990 to 2100: no number has two readings there
const MILLION = 1_000_000n;
const DAY_MS = 86_400_000;

export const isEmpty = (cell) => EMPTY.has(cell.trim());

/** A finite number, or null. */
export function parseNumber(cell) {
  const text = cell.trim();
  const value = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/.test(text) ? Number(text) : NaN;
  return Number.isFinite(value) ? value : null;
}

/**
 * A moment of a calendar.  `wall` are the microseconds (BigInt) that its clock shows, counted as if in UTC;
 * `offset` are the minutes of its zone, null for a time without one.
 */
export class Time {
  constructor(wall, offset = null) {
    this.wall = wall;
    this.offset = offset;
  }

  /** Microseconds on the common axis; times with and without a zone are never compared. */
  get instant() {
    return this.wall - BigInt(this.offset ?? 0) * 60n * MILLION;
  }

  /** Midnight of the day that the clock shows. */
  get date() {
    return new Date(Math.floor(Number(this.wall / 1000n) / DAY_MS) * DAY_MS);
  }

  /** Microseconds since that midnight. */
  get timeOfDay() {
    return this.wall - BigInt(this.date.getTime()) * 1000n;
  }

  /** The same time of day on another date. */
  on(year, month, day) {
    return new Time(BigInt(Date.UTC(year, month - 1, day)) * 1000n + this.timeOfDay, this.offset);
  }

  /** `2024-01-31 13:00:00+01:00`. */
  toString() {
    const text = new Date(Number(this.wall / 1000n)).toISOString();
    const part = this.wall % MILLION;
    const fraction = part ? `.${String(part).padStart(6, "0")}` : "";
    return `${text.slice(0, 10)} ${text.slice(11, 19)}${fraction}${zoneText(this.offset)}`;
  }
}

function zoneText(offset) {
  if (offset === null) return "";
  const minutes = Math.abs(offset);
  const two = (number) => String(number).padStart(2, "0");
  return `${offset < 0 ? "-" : "+"}${two(Math.floor(minutes / 60))}:${two(minutes % 60)}`;
}

const TIME_OF_DAY =
  "(?:[T ] *(?<hour>\\d{1,2})(?::(?<minute>\\d{2})(?::(?<second>\\d{2})(?:[.,](?<part>\\d{1,9}))?)?)?" +
  " *(?<half>[AaPp][Mm])? *(?<zone>Z|UTC|[+-]\\d{2}(?::?\\d{2})?)?)?";
const YEAR = "(?<year>[1-9]\\d{3})";
const MONTH = "(?<month>\\d{1,2})";
const DAY = "(?<day>\\d{1,2})";
const DATES = [ // the first that fits every row is taken
  `${YEAR}-${MONTH}(?:-${DAY})?`,
  `${YEAR}/${MONTH}/${DAY}`,
  `${MONTH}/${DAY}/${YEAR}`,
  `${DAY}/${MONTH}/${YEAR}`,
  `${DAY}\\.${MONTH}\\.${YEAR}`,
];

/** A pattern of dates. */
class DateNotation {
  constructor(pattern) {
    this.pattern = new RegExp(`^(?:${pattern})${TIME_OF_DAY}$`);
  }

  parse(cell) {
    const found = this.pattern.exec(cell.trim());
    return found ? fromParts(found.groups) : null;
  }

  render(time) {
    return String(time);
  }
}

/** Unix time in one unit. */
class UnixNotation {
  constructor(unit) {
    this.unit = unit;
    this.per = UNIX_UNITS[unit];
  }

  parse(cell) {
    const found = /^(\d{9,19})(?:\.(\d*))?$/.exec(cell.trim());
    if (!found || unixUnit(Number(found[0])) !== this.unit) return null;
    const digits = found[2] ?? "";
    const ticks = BigInt(found[1] + digits);
    return new Time((ticks * MILLION) / (this.per * 10n ** BigInt(digits.length)), 0);
  }

  render(time) {
    const ticks = time.instant * this.per;
    const fraction = String(ticks % MILLION).padStart(6, "0").replace(/0+$/, "");
    return `${ticks / MILLION}${fraction && `.${fraction}`}`;
  }
}

const DATE_NOTATIONS = DATES.map((pattern) => new DateNotation(pattern));
const UNIX_NOTATIONS = Object.keys(UNIX_UNITS).map((unit) => new UnixNotation(unit));

function unixUnit(value) {
  const [first, last] = UNIX_SECONDS;
  const fits = ([, per]) => first * Number(per) <= value && value < last * Number(per);
  return Object.entries(UNIX_UNITS).find(fits)?.[0] ?? null;
}

/**
 * The notation that reads the most of the cells from the first one on, and the times so far.  Fewer times
 * than cells: the cell after them is no time in the notation of those before.
 */
export function readTimes(cells, { unix }) {
  let best = { notation: null, times: [] };
  for (const notation of [...DATE_NOTATIONS, ...(unix ? UNIX_NOTATIONS : [])]) {
    const times = [];
    for (const cell of cells) {
      const time = notation.parse(cell);
      if (time === null) break;
      times.push(time);
    }
    if (times.length > best.times.length) best = { notation, times };
    if (times.length && times.length === cells.length) break;
  }
  return best;
}

function fromParts(parts) {
  const number = (name, otherwise = 0) => Number(parts[name] ?? otherwise);
  const [year, month, day] = [number("year"), number("month"), number("day", 1)];
  let hour = number("hour");
  if (parts.half) {
    if (hour < 1 || hour > 12) return null;
    hour = (hour % 12) + (parts.half.toLowerCase() === "pm" ? 12 : 0);
  }
  const [minute, second, offset] = [number("minute"), number("second"), zoneMinutes(parts.zone)];
  const date = new Date(Date.UTC(year, month - 1, day));
  const exists = date.getUTCMonth() === month - 1 && date.getUTCDate() === day; // not the 31st of June
  if (!exists || hour > 23 || minute > 59 || second > 59 || offset === undefined) return null;
  const micro = BigInt((parts.part ?? "").padEnd(6, "0").slice(0, 6));
  const seconds = BigInt((hour * 60 + minute) * 60 + second);
  return new Time(BigInt(date.getTime()) * 1000n + seconds * MILLION + micro, offset);
}

/** Minutes from UTC; null for no zone, undefined for one that there is not. */
function zoneMinutes(text) {
  if (text === undefined) return null;
  if (text === "Z" || text === "UTC") return 0;
  const digits = text.slice(1).replace(":", "");
  const minutes = Number(digits.slice(0, 2)) * 60 + Number(digits.slice(2) || 0);
  if (minutes >= 24 * 60) return undefined;
  return text[0] === "-" ? -minutes : minutes;
}
