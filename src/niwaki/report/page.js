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
}));

// Only the runs whose name or settings hold all words.
const filter = document.getElementById("filter");
filter?.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(" ").filter(Boolean);
  let count = 0;
  for (const row of body.querySelectorAll("tr[data-run]")) {
    row.hidden = !words.every((word) => row.dataset.said.includes(word));
    document.getElementById(`run-${row.dataset.run}`).hidden = row.hidden;
    count += !row.hidden;
  }
  document.getElementById("shown").textContent = count === 1 ? "1 run" : `${count} runs`;
});
