// What a mark stands for, on hover, focus and touch; and nothing folded away on paper.
const tip = document.getElementById("tip");
function show(mark) {
  tip.textContent = mark.dataset.tip;
  tip.classList.add("shown");
  const at = mark.getBoundingClientRect();
  const left = Math.min(Math.max(8, at.left + at.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
  const above = at.top - tip.offsetHeight - 8;
  tip.style.left = left + scrollX + "px";
  tip.style.top = (above > 4 ? above : at.bottom + 8) + scrollY + "px";
}
const hide = () => tip.classList.remove("shown");
for (const mark of document.querySelectorAll("[data-tip]")) {
  for (const event of ["mouseenter", "focus", "click"]) mark.addEventListener(event, () => show(mark));
  for (const event of ["mouseleave", "blur"]) mark.addEventListener(event, hide);
}
addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

// What is inside a run is drawn when it is first unfolded: a page of hundreds opens at once.
const draw = (part) => {
  const kept = part.querySelector(":scope > template");
  if (kept) kept.replaceWith(kept.content);
};
const parts = [...document.querySelectorAll("details")];
for (const part of parts) part.addEventListener("toggle", () => { if (part.open) draw(part); });
addEventListener("beforeprint", () => { for (const part of parts) { draw(part); part.open = true; } });

// Rows in the order of a column; originals stay above.
const body = document.querySelector("table.runs tbody");
const heads = [...document.querySelectorAll("table.runs thead th")];
heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of heads) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = (row) => column ? Number(row.cells[column].dataset.value ?? NaN) : row.dataset.said;
  const rows = [...body.querySelectorAll("tr[data-run]")];
  rows.sort((one, other) => {
    const a = value(one), b = value(other);
    if (column && (isNaN(a) || isNaN(b))) return isNaN(a) - isNaN(b);
    return (a < b ? -1 : a > b ? 1 : one.dataset.run - other.dataset.run) * (up ? 1 : -1);
  });
  body.append(...rows);
  at = 0;
  lay();
}));

// Only the runs whose name or settings hold all words, and of many those of one page.
const filter = document.getElementById("filter");
const paging = document.querySelector("nav.pages");
let at = 0, all = !paging;
function lay() {
  const words = filter ? filter.value.toLowerCase().split(" ").filter(Boolean) : [];
  const rows = [...body.querySelectorAll("tr[data-run]")];
  const found = rows.filter((row) => words.every((word) => row.dataset.said.includes(word)));
  const size = all ? Math.max(found.length, 1) : Number(paging.dataset.size);
  const last = Math.max(Math.ceil(found.length / size) - 1, 0);
  at = Math.min(Math.max(at, 0), last);
  const shown = new Set(found.slice(at * size, (at + 1) * size));
  for (const row of rows) {
    row.hidden = !shown.has(row);
    document.getElementById(`run-${row.dataset.run}`).hidden = row.hidden;
  }
  if (filter) document.getElementById("shown").textContent = found.length === 1 ? "1 run" : `${found.length} runs`;
  if (!paging) return;
  const [back, on, whole] = paging.querySelectorAll("button");
  back.setAttribute("aria-disabled", at === 0);
  on.setAttribute("aria-disabled", at === last);
  whole.setAttribute("aria-pressed", all);
  const first = found.length ? at * size + 1 : 0;
  paging.querySelector("span").textContent = `${first}–${at * size + shown.size} of ${found.length}`;
}
filter?.addEventListener("input", () => { at = 0; lay(); });
if (paging) {
  const turns = { back: () => { at -= 1; }, on: () => { at += 1; }, all: () => { all = !all; } };
  for (const button of paging.querySelectorAll("button")) {
    button.addEventListener("click", () => { turns[button.dataset.turn](); lay(); });
  }
  let before = all;
  addEventListener("beforeprint", () => { before = all; all = true; lay(); });
  addEventListener("afterprint", () => { all = before; lay(); });
  paging.hidden = false;
  lay();
}
