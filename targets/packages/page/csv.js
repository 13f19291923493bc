// A file becomes text, and text becomes rows: UTF-8, commas (tabs in a .tsv), quotes as RFC 4180 has them,
// packed or not.

import { InputError } from "./text.js";

const MAX_BYTES = 1 << 28;
const MAX_LINE = 1 << 23; // what no table has that anybody forecasts from
const MAX_EMPTY_LINES = 1 << 20;

/** The text of a File, unpacked where its name ends in .gz; a few kilobytes may unpack to gigabytes. */
export async function readText(file) {
  const packed = file.name.toLowerCase().endsWith(".gz");
  const stream = packed ? file.stream().pipeThrough(new DecompressionStream("gzip")) : file.stream();
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const [parts, reader] = [[], stream.getReader()];
  let bytes = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      bytes += value.length;
      if (bytes > MAX_BYTES) throw new Error(`more than ${MAX_BYTES} bytes`);
      parts.push(decoder.decode(value, { stream: true }));
    }
    parts.push(decoder.decode());
  } catch (error) {
    throw unreadable(file.name, packed ? `not a whole gzip of UTF-8 (${error.message})` : error.message);
  }
  return parts.join("");
}

/**
 * @returns {{header: string[], rows: {line: number, cells: string[]}[]}} `line` is where the row ends.
 * @throws {InputError} the text is no CSV.
 */
export function parseCsv(name, text) {
  checkLines(name, text);
  const separator = /\.tsv(\.gz)?$/i.test(name) ? "\t" : ",";
  const records = [];
  let [at, line] = [0, 0];
  while (at < text.length) {
    const cells = [];
    let more = true;
    while (more) {
      const field = readField(name, text, at, separator);
      cells.push(field.value);
      line += field.breaks;
      at = field.end;
      more = text[at] === separator;
      if (more) at += 1;
    }
    at += text.startsWith("\r\n", at) ? 2 : 1;
    line += 1;
    records.push({ line, cells });
  }
  const [first, ...rest] = records;
  const isBlank = ({ cells }) => cells.length === 1 && !cells[0].trim();
  return { header: first && !(first.cells.length === 1 && !first.cells[0]) ? first.cells : [],
    rows: rest.filter((row) => !isBlank(row)) };
}

/** One field from `at` on: its value, where it ends (a separator, a line break, the end), its line breaks. */
function readField(name, text, at, separator) {
  if (text[at] !== '"') {
    const end = nextOf(text, separator === "," ? /[,\r\n]/g : /[\t\r\n]/g, at);
    return { value: text.slice(at, end), end, breaks: 0 };
  }
  const parts = [];
  let start = at + 1;
  for (;;) {
    const quote = text.indexOf('"', start);
    if (quote === -1) throw unreadable(name, "a quote is not closed");
    parts.push(text.slice(start, quote));
    start = quote + 2;
    if (text[quote + 1] === '"') continue; // two quotes are one
    const end = quote + 1;
    if (end < text.length && !`${separator}\r\n`.includes(text[end])) {
      throw unreadable(name, `'${separator}' expected after '"'`);
    }
    const value = parts.join('"');
    return { value, end, breaks: value.match(/\r\n|\r|\n/g)?.length ?? 0 };
  }
}

function checkLines(name, text) {
  let [start, empty] = [0, 0];
  while (start < text.length) {
    const end = nextOf(text, /[\r\n]/g, start);
    if (end - start > MAX_LINE) throw unreadable(name, `a line has more than ${MAX_LINE} characters`);
    empty = text.slice(start, end).trim() ? 0 : empty + 1;
    if (empty > MAX_EMPTY_LINES) {
      throw unreadable(name, `more than ${MAX_EMPTY_LINES} empty lines in a row`);
    }
    start = end + (text.startsWith("\r\n", end) ? 2 : 1);
  }
}

function nextOf(text, pattern, from) {
  pattern.lastIndex = from;
  return pattern.exec(text)?.index ?? text.length;
}

const unreadable = (name, reason) => new InputError(`${name} cannot be read as CSV: ${reason}`);
