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
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });
