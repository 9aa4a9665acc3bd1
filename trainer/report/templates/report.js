"use strict";
// The per-label table: sorted, filtered and shown a part at a time, because there may be thousands of labels.
const AT_A_TIME = 50;
const { columns, rows } = JSON.parse(document.getElementById("label-data").textContent);
const body = document.querySelector("#label-table tbody");
const headers = [...document.querySelectorAll("#label-table th")];
const [name, group, least] = ["label-name", "label-group", "label-least"].map((id) => document.getElementById(id));
const more = document.getElementById("label-more");
const status = document.getElementById("label-status");
const state = { column: columns.findIndex((c) => c.key === "train_positives"), direction: -1, shown: AT_A_TIME };

function text(value, digits) {
  if (value === null) return "–";
  if (typeof value === "string") return value;
  return digits === 0 ? value.toLocaleString("en-US") : value.toFixed(digits);
}

function compare(a, b) {
  const [x, y] = [a[state.column], b[state.column]];
  if (x === null || y === null) return (x === null) - (y === null); // what is not there stands last either way
  const order = typeof x === "string" ? (x < y ? -1 : x > y) : x - y;
  return order * state.direction || a[columns.length] - b[columns.length];
}

function show() {
  const wanted = name.value.trim().toLowerCase();
  const at = Object.fromEntries(columns.map((c, i) => [c.key, i]));
  const found = rows.filter(
    (row) =>
      row[at.name].toLowerCase().includes(wanted) &&
      (!group.value || row[at.group] === group.value) &&
      row[at.positives] >= Number(least.value || 0),
  );
  found.sort(compare);
  body.replaceChildren(
    ...found.slice(0, state.shown).map((row) => {
      const line = document.createElement("tr");
      columns.forEach((column, i) => {
        const cell = line.insertCell();
        cell.textContent = text(row[i], column.digits); // never HTML: names come from data
        if (column.digits === null) cell.className = "name";
      });
      return line;
    }),
  );
  headers.forEach((header, i) => {
    if (i === state.column) header.setAttribute("aria-sort", state.direction > 0 ? "ascending" : "descending");
    else header.removeAttribute("aria-sort");
  });
  const count = Math.min(found.length, state.shown);
  status.textContent = `${count.toLocaleString("en-US")} of ${found.length.toLocaleString("en-US")} labels`;
  more.hidden = found.length <= state.shown;
}

headers.forEach((header, i) =>
  header.querySelector("button").addEventListener("click", () => {
    // Numbers begin with the highest, names with the first.
    state.direction = i === state.column ? -state.direction : columns[i].digits === null ? 1 : -1;
    state.column = i;
    state.shown = AT_A_TIME;
    show();
  }),
);
function refilter() {
  state.shown = AT_A_TIME;
  show();
}
[name, least].forEach((field) => field.addEventListener("input", refilter));
group.addEventListener("change", refilter);
more.addEventListener("click", () => {
  state.shown += 10 * AT_A_TIME;
  show();
});
rows.forEach((row, i) => row.push(i)); // ties stay in the order of the data
show();
