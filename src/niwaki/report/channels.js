// What is in a group shows when its name is clicked; without this script all of it stands below.
document.documentElement.classList.add("js");
const drawing = document.querySelector("svg");
const buttons = [...document.querySelectorAll(".groups button")];
let chosen = null;
function choose(button) {
  for (const other of buttons) {
    const on = other === button;
    other.setAttribute("aria-expanded", on);
    other.closest("tr").classList.toggle("chosen", on);
    document.getElementById(other.getAttribute("aria-controls")).classList.toggle("open", on);
  }
  const number = button?.dataset.group;
  drawing?.classList.toggle("choosing", Boolean(button));
  for (const path of document.querySelectorAll("path")) {
    path.classList.toggle("chosen", number !== undefined && path.dataset.ends.split(" ").includes(number));
  }
  chosen = button;
}
function close() {
  const last = chosen;
  choose(null);
  last?.focus();
}
for (const button of buttons) {
  button.addEventListener("click", () => choose(button === chosen ? null : button));
  document.getElementById(button.getAttribute("aria-controls")).querySelector(".close").addEventListener("click", close);
}
addEventListener("keydown", (event) => { if (event.key === "Escape" && chosen) close(); });
