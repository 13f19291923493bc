"use strict";
// Draws every chart of the page from the JSON beside it.  Expressions are interpreted, never evaluated, so the
// page needs no right to run text as code.
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const options = { mode: "vega-lite", actions: false, renderer: "svg", ast: true, tooltip: false };
  const draw = (place, spec) =>
    window.vegaEmbed(place, spec, options).catch((error) => {
      place.textContent = "This chart could not be drawn: " + error.message;
    });

  function windowRows(example, labels) {
    const rows = [];
    const line = (name, values, first) =>
      values.forEach((value, at) => rows.push({ name: labels[name], step: first + at, value }));
    line("past", example.past, -example.past.length + 1);
    // The lines begin where the past ends.
    const last = example.past.length ? [example.past[example.past.length - 1]] : [];
    const start = last.length ? 0 : 1;
    line("truth", last.concat(example.truth), start);
    for (const [name, values] of Object.entries(example.forecasts)) line(name, last.concat(values), start);
    return rows;
  }

  function drawExamples(id, variate) {
    const { frame, labels, windows } = charts[id];
    const box = document.querySelector(`[data-frames="${id}"]`);
    for (const example of windows) {
      if (example.variate !== variate) continue;
      const spec = structuredClone(frame);
      spec.data.values = windowRows(example, labels);
      box.querySelector(`[data-title="${example.kind}"]`).textContent = example.title;
      draw(box.querySelector(`[data-kind="${example.kind}"]`), spec);
    }
  }

  function drawIn(root) {
    for (const place of root.querySelectorAll(".chart[id]:not([data-drawn])")) {
      if (!place.offsetParent || !charts[place.id]) continue; // inside something closed: no width yet
      place.dataset.drawn = "";
      draw(place, charts[place.id]);
    }
    for (const choice of root.querySelectorAll("select[data-examples]:not([data-drawn])")) {
      if (!choice.offsetParent) continue;
      choice.dataset.drawn = "";
      const show = () => drawExamples(choice.dataset.examples, Number(choice.value));
      choice.addEventListener("change", show);
      show();
    }
  }

  drawIn(document);
  for (const details of document.querySelectorAll("details"))
    details.addEventListener("toggle", () => details.open && drawIn(details));
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
    drawIn(document);
  });
})();
