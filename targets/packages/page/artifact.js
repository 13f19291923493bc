// The artifact, checked and loaded: every file against SHA256SUMS, then raw units in, raw units out.
//
// Nothing here knows of a page: `read` gives the bytes of a file, `ort` is onnxruntime for the web or for Node.

import { ArtifactError, InputError } from "./text.js";

const SCHEMA = 1;
const [SUMS, MANIFEST] = ["SHA256SUMS", "manifest.json"];

export class Artifact {
  #session;

  constructor(manifest, files, session) {
    this.manifest = manifest;
    this.task = manifest.task;
    this.files = files; // name -> bytes, all of them hashed
    this.#session = session;
  }

  /**
   * @param {(name: string) => Promise<ArrayBuffer>} read a file of the artifact
   * @param {object} ort the module onnxruntime-web or onnxruntime-node
   * @throws {ArtifactError} a file is missing or was changed, or is not what it says
   */
  static async load(read, ort) {
    const files = await readChecked(read);
    const manifest = parseManifest(files);
    const session = await ort.InferenceSession.create(new Uint8Array(files.get(manifest.target.entry)));
    const artifact = new Artifact(manifest, files, session);
    artifact.ort = ort;
    return artifact;
  }

  /** `D` arrays of `L` values to `D` arrays of `H`, in the units of the data. */
  async forecast(past) {
    const [forecast] = await this.#inScaledUnits([past.map((row, at) => this.#scale(row, at))]);
    return forecast.map((row, at) => this.#unscale(row, at));
  }

  /** Compares with the forecasts of the original model that travel with the artifact. */
  async selftest() {
    const { lookback, horizon } = this.task;
    const tolerance = this.manifest.selftest?.tolerance;
    if (!(tolerance > 0 && tolerance < 1)) {
      throw new ArtifactError(`${MANIFEST} field selftest.tolerance: expected a number in (0, 1)`);
    }
    const past = this.#vectors("selftest/past.npy", lookback);
    const expected = this.#vectors("selftest/forecast.npy", horizon);
    if (past.length !== expected.length) {
      throw new ArtifactError(`selftest/ has ${past.length} windows and ${expected.length} forecasts`);
    }
    const scaled = past.map((window) => window.map((row, at) => this.#scale(row, at)));
    const forecasts = await this.#inScaledUnits(scaled);
    const errors = forecasts.map((forecast, window) => {
      const truth = expected[window].map((row, at) => this.#scale(row, at));
      const scale = largest(scaled[window]) + largest(truth);
      const error = largest(forecast.map((row, at) => row.map((value, step) => value - truth[at][step])));
      return error / (scale || 1);
    });
    const maxRel = Math.max(...errors);
    return { windows: past.length, maxRel, tolerance, passed: maxRel <= tolerance };
  }

  /** A window to try: the first of the self-test. */
  exampleWindow() {
    return this.#vectors("selftest/past.npy", this.task.lookback)[0];
  }

  #scale(row, variate) {
    const { mean, std } = this.manifest.input;
    return row.map((value) => (value - mean[variate]) / std[variate]);
  }

  #unscale(row, variate) {
    const { mean, std } = this.manifest.input;
    return row.map((value) => value * std[variate] + mean[variate]);
  }

  /** Windows of D arrays; a program with a fixed batch runs as often as needed, the last piece padded. */
  async #inScaledUnits(windows) {
    const fixed = this.manifest.target.batch;
    const size = Number.isInteger(fixed) ? fixed : windows.length;
    const forecasts = [];
    for (let start = 0; start < windows.length; start += size) {
      const piece = Array.from({ length: size }, (_, at) => windows[start + at] ?? windows[0]);
      forecasts.push(...(await this.#run(piece)));
    }
    return forecasts.slice(0, windows.length);
  }

  async #run(windows) {
    const { lookback, horizon, variates } = this.task;
    const past = new Float32Array(windows.length * variates.length * lookback);
    windows.flat().forEach((row, at) => past.set(row, at * lookback));
    if (!past.every(Number.isFinite)) throw new InputError("past: the scaled values do not fit into float32");
    const dims = [windows.length, variates.length, lookback];
    const { forecast } = await this.#session.run({ past: new this.ort.Tensor("float32", past, dims) });
    const expected = [windows.length, variates.length, horizon];
    if (String(forecast?.dims) !== String(expected) || !forecast.data.every(Number.isFinite)) {
      throw new ArtifactError(`the program returned [${forecast?.dims}], expected finite [${expected}]`);
    }
    const row = (at) => Float64Array.from(forecast.data.subarray(at * horizon, (at + 1) * horizon));
    return windows.map((_, window) => variates.map((_, at) => row(window * variates.length + at)));
  }

  /** Self-test vectors: windows of D arrays of `steps` float64. */
  #vectors(name, steps) {
    const bytes = this.files.get(name) ?? new ArrayBuffer(0);
    const text = String.fromCharCode(...new Uint8Array(bytes.slice(0, 256)));
    const start = 10 + text.charCodeAt(8) + 256 * text.charCodeAt(9);
    const shape = /\((\d+), (\d+), (\d+)\)/.exec(text)?.slice(1).map(Number) ?? [];
    const plain = /^\x93NUMPY\x01\x00..{'descr': '<f8', 'fortran_order': False/s.test(text);
    const [count, variates] = [shape[0], this.task.variates.length];
    const whole = bytes.byteLength - start === 8 * count * variates * steps;
    if (!plain || !count || shape[1] !== variates || shape[2] !== steps || !whole) {
      throw new ArtifactError(`${name} does not hold float64 [N, ${variates}, ${steps}]`);
    }
    const numbers = new Float64Array(bytes.slice(start));
    const row = (at) => numbers.slice(at * steps, (at + 1) * steps);
    return Array.from({ length: count }, (_, window) =>
      Array.from({ length: variates }, (_, at) => row(window * variates + at)),
    );
  }
}

/** Every file that SHA256SUMS lists, name -> bytes. */
async function readChecked(read) {
  if (!globalThis.crypto?.subtle) {
    throw new ArtifactError("open this page over https or on localhost: elsewhere a browser has no SHA-256");
  }
  const files = new Map();
  const listing = new TextDecoder().decode(await read(SUMS));
  const lines = listing.split("\n").filter(Boolean);
  for (const [number, line] of lines.entries()) {
    const found = /^([0-9a-f]{64}) {2}(?!\/)((?!\.{1,2}(?:\/|$))[\w.-]+(?:\/(?!\.{1,2}(?:\/|$))[\w.-]+)*)$/.exec(line);
    if (!found) throw new ArtifactError(`${SUMS} line ${number + 1}: expected '<sha256>  <file>'`);
    const [, expected, name] = found;
    const bytes = await read(name);
    const got = hex(await crypto.subtle.digest("SHA-256", bytes));
    if (got !== expected) {
      const short = (digest) => `${digest.slice(0, 16)}...`;
      throw new ArtifactError(`${name} was changed: sha256 ${short(got)}, expected ${short(expected)}`);
    }
    files.set(name, bytes);
  }
  return files;
}

function parseManifest(files) {
  if (!files.has(MANIFEST)) throw new ArtifactError(`${SUMS} does not list ${MANIFEST}`);
  const manifest = JSON.parse(new TextDecoder().decode(files.get(MANIFEST)));
  if (manifest.schema !== SCHEMA) {
    throw new ArtifactError(`${MANIFEST} has schema ${manifest.schema}, this page reads schema ${SCHEMA}`);
  }
  if (!files.has(manifest.target?.entry)) {
    throw new ArtifactError(`${MANIFEST} field target.entry: no file of the artifact`);
  }
  return manifest;
}

const hex = (buffer) => Array.from(new Uint8Array(buffer), (b) => b.toString(16).padStart(2, "0")).join("");

/** The largest size of a number in D arrays. */
const largest = (rows) =>
  rows.reduce((most, row) => row.reduce((best, value) => Math.max(best, Math.abs(value)), most), 0);
