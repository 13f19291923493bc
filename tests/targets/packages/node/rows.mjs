// Reads tables with the page's modules: cases as JSON on stdin, what each became as JSON on stdout.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const page = (name) => import(pathToFileURL(`${process.argv[2]}/${name}`));
const { readHistory } = await page("rows.js");
const { future } = await page("steps.js");
const { toCsv } = await page("output.js");

async function answer({ file, content, task, missing }) {
  try {
    const rows = new File([Buffer.from(content, "base64")], file);
    const history = await readHistory(rows, task, missing ?? undefined);
    return {
      values: history.values.map((row) => Array.from(row)),
      cells: history.filledCells,
      rows: history.filledRows,
      csv: toCsv(history, future(history, task), history.values, task),
    };
  } catch (error) {
    return { error: error.message };
  }
}

const cases = JSON.parse(readFileSync(0));
console.log(JSON.stringify(await Promise.all(cases.map(answer))));
