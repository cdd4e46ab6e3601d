"use strict";
const by = (id) => document.getElementById(id);
for (const form of document.querySelectorAll("form.filters")) {
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
}

if (by("search")) {
  const rows = [...document.querySelectorAll(".example")].map((row) => [row, row.textContent.toLowerCase()]);
  const filter = () => {
    const [hazard, principle, mark] = ["hazard", "principle", "mark"].map((id) => by(id).value);
    const wanted = by("search").value.toLowerCase().trim();
    let shown = 0;
    for (const [row, text] of rows) {
      const data = row.dataset;
      row.hidden = !(
        (!hazard || data.hazard === hazard) &&
        (!principle || data.principle === principle) &&
        (!mark || data.marks.split(" ").includes(mark)) &&
        text.includes(wanted)
      );
      shown += !row.hidden;
    }
    by("count").textContent = `${shown} of ${rows.length} shown`;
    by("nothing").hidden = shown > 0;
  };
  for (const id of ["search", "hazard", "principle", "mark"]) by(id).addEventListener("input", filter);
  filter();
}

if (by("heat-score")) {
  const pick = () => {
    for (const table of document.querySelectorAll("table.heat")) {
      table.hidden = table.dataset.score !== by("heat-score").value || table.dataset.arm !== by("heat-arm").value;
    }
  };
  for (const id of ["heat-score", "heat-arm"]) by(id).addEventListener("input", pick);
  pick();
}
