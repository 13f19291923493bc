// The page: checks the artifact, takes a CSV, shows the forecast.  All of it happens in this browser.

import { Artifact } from "./artifact.js";
import { draw, shortNumber } from "./chart.js";
import { toCsv } from "./output.js";
import { readHistory } from "./rows.js";
import { future } from "./steps.js";
import { InputError } from "./text.js";

const at = (id) => document.getElementById(id);
const state = { artifact: null, interval: null, file: null, shown: null };

async function fetched(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path} is missing here (HTTP ${answer.status})`);
  return answer.arrayBuffer();
}

async function start() {
  try {
    const ort = await import("./runtime/ort.js");
    ort.env.wasm.numThreads = 1; // more would need headers that a plain file server does not send
    ort.env.wasm.wasmBinary = await fetched("runtime/ort.wasm");
    const { name, interval } = JSON.parse(new TextDecoder().decode(await fetched("page.json")));
    state.artifact = await Artifact.load((path) => fetched(`artifact/${path}`), ort);
    state.interval = interval;
    describe(name);
    const test = await state.artifact.selftest();
    const found = `${test.maxRel.toExponential(1)} of the window's scale, tolerance ${test.tolerance}`;
    if (!test.passed) throw new Error(`the self-test differs by ${found}`);
    say(`${state.artifact.files.size} files match their hashes; self-test: ${test.windows} windows within ${found}.`);
    at("controls").disabled = false;
  } catch (error) {
    fail(`This artifact is not used: ${error.message}`);
  }
  document.body.dataset.ready = at("error").hidden ? "yes" : "no";
}

function describe(name) {
  const { task, manifest } = state.artifact;
  const step = task.frequency ?? (task.step_seconds ? `${task.step_seconds} s` : "one row");
  document.title = `${name}: forecast from a CSV`;
  at("name").textContent = name;
  at("task").textContent =
    `Needs the last ${task.lookback} rows (step ${step}), forecasts ${task.horizon}: ${task.variates.slice(0, 20).join(", ")}` +
    (task.variates.length > 20 ? ` and ${task.variates.length - 20} more.` : ".");
  at("licence").textContent = manifest.licence?.warning ?? "";
  at("missing").value = task.missing ?? "error";
  at("variate").replaceChildren(...task.variates.map((each, index) => new Option(each, index)));
}

/** Forecasts from the file that was given last, or says in one line why not. */
async function forecast() {
  if (!state.file) return;
  await shown(async () => {
    const history = await readHistory(state.file, state.artifact.task, at("missing").value);
    const filled = history.filledRows + history.filledCells
      ? ` Filled in: ${history.filledCells} empty cells and ${history.filledRows} missing rows.` : "";
    return { history, title: `${state.file.name}.${filled}` };
  });
}

async function example() {
  state.file = null;
  await shown(async () => {
    const values = state.artifact.exampleWindow();
    return { history: { values, last: null, notation: null, timeColumn: null }, title: "An example from the self-test." };
  });
}

async function shown(read) {
  at("error").hidden = true;
  delete document.body.dataset.drawn;
  try {
    const { history, title } = await read();
    const times = future(history, state.artifact.task);
    state.shown = { history, times, title, values: await state.artifact.forecast(history.values) };
    at("result").hidden = false;
    render();
    document.body.dataset.drawn = "yes";
  } catch (error) {
    at("result").hidden = true;
    fail(error instanceof InputError ? error.message : `This did not work: ${error.message}`);
  }
}

/** Picture, table and words of the chosen variate. */
function render() {
  if (!state.shown) return;
  const { history, values, title } = state.shown;
  const index = Number(at("variate").value);
  const forecast = values[index];
  const offsets = state.interval?.variates[state.artifact.task.variates[index]];
  const bound = (name) => (offsets ? forecast.map((value, step) => value + offsets[name][step]) : null);
  const [low, high] = [bound("low"), bound("high")];
  const past = history.values[index].slice(-Math.max(24, 3 * forecast.length));
  at("title").textContent = title;
  at("interval").textContent = intervalWords(offsets);
  at("key-interval").hidden = !low;
  const series = { past, forecast, low, high, label };
  const { stepAt } = draw(at("chart"), series);
  at("chart").onpointermove = (event) => readOut(series, stepAt(event.offsetX));
  readOut(series, 0);
  at("rows").replaceChildren(...Array.from(forecast, (value, step) => row(step, value, low, high)));
}

function intervalWords(offsets) {
  if (!offsets) return "No interval is drawn: this package carries no errors of the artifact to draw one from.";
  const { levels, windows, covered } = state.interval;
  const [low, high] = levels.map((level) => `${Number((100 * level).toFixed(1))} %`);
  const held = covered === null ? "" : `; on the test split it held ${Number((100 * covered).toFixed(1))} % of the values`;
  return `Interval: from the ${low} to the ${high} quantile of the artifact's own errors at each step, over ${windows} windows of the validation split${held}.`;
}

function label(step) {
  if (state.shown.times && step >= 0) return state.shown.times[step].toString().replace(/:00(?=$|[+-])/, "");
  return step >= 0 ? `step ${step + 1}` : `${-step} rows back`;
}

function readOut({ past, forecast, low, high }, step) {
  const value = step < 0 ? past[past.length + step] : forecast[step];
  const range = step >= 0 && low ? ` (${shortNumber(low[step])} to ${shortNumber(high[step])})` : "";
  at("value").textContent = `${label(step)}: ${shortNumber(value)}${range}`;
}

function row(step, value, low, high) {
  const cells = [label(step), shortNumber(value), low ? `${shortNumber(low[step])} to ${shortNumber(high[step])}` : "-"];
  const made = document.createElement("tr");
  made.append(...cells.map((content, column) => {
    const cell = document.createElement(column ? "td" : "th");
    if (!column) cell.scope = "row";
    cell.textContent = content;
    return cell;
  }));
  return made;
}

function save() {
  const { history, times, values } = state.shown;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([toCsv(history, times, values, state.artifact.task)], { type: "text/csv" }));
  link.download = "forecast.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
}

function take(file) {
  if (!file) return;
  state.file = file;
  forecast();
}

function fail(message) {
  at("error").textContent = message;
  at("error").hidden = false;
}

const say = (message) => { at("status").textContent = message; };

at("file").addEventListener("click", (event) => { event.target.value = ""; }); // the same file, once repaired
at("file").addEventListener("change", (event) => take(event.target.files[0]));
at("missing").addEventListener("change", forecast);
at("variate").addEventListener("change", render);
at("example").addEventListener("click", example);
at("save").addEventListener("click", save);
addEventListener("resize", render);
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
document.addEventListener("dragleave", () => at("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  if (!at("controls").disabled) take(event.dataTransfer.files[0]);
});
start();
