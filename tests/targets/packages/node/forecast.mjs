// Runs an artifact with the page's modules on onnxruntime-node: [folder of the page, artifact], windows on stdin.

import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import ort from "onnxruntime-node";

const [page, artifact] = process.argv.slice(2);
const { Artifact } = await import(pathToFileURL(`${page}/artifact.js`));
const bytes = async (name) => new Uint8Array(await readFile(`${artifact}/${name}`)).buffer;
try {
  const loaded = await Artifact.load(bytes, ort);
  const forecasts = [];
  for (const window of JSON.parse(readFileSync(0))) {
    const forecast = await loaded.forecast(window.map((row) => Float64Array.from(row)));
    forecasts.push(forecast.map((row) => Array.from(row)));
  }
  console.log(JSON.stringify({ forecasts, selftest: await loaded.selftest() }));
} catch (error) {
  console.log(JSON.stringify({ error: error.message }));
}
