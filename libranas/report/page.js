"use strict";
// All of this only adds comfort: without it the page shows the same numbers and links.

// -- tables: a button in each head sorts -----------------------------------------------------------------
const NUMBER = /^[-+]?(\d[\d,]*\.?\d*|\.\d+)(?!\w)/;

function sort(table, column) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, text: row.cells[column].textContent.trim() }));
  const empty = ({ text }) => ["", "n/a", "–"].includes(text);
  const numbers = rows.every((row) => empty(row) || NUMBER.test(row.text));
  const number = ({ text }) => parseFloat(text.replaceAll(",", ""));
  const before = heads[column].ariaSort;
  const order = before === "descending" || (!before && !numbers) ? "ascending" : "descending";
  const sign = order === "ascending" ? 1 : -1;
  rows.sort((a, b) => {
    if (empty(a) || empty(b)) return empty(a) - empty(b); // last, either way
    return sign * (numbers ? number(a) - number(b) : a.text.localeCompare(b.text));
  });
  body.append(...rows.map(({ row }) => row));
  heads.forEach((head, i) => (head.ariaSort = i === column ? order : null));
}

for (const table of document.querySelectorAll("table")) {
  [...(table.tHead?.rows[0].cells ?? [])].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, column));
    head.append(button);
  });
}
for (const box of document.querySelectorAll(".scroll, figure, pre")) {
  if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
}

// -- figures: a point shows what it says; the arrow keys lead from point to point --------------------------
const tip = document.getElementById("tip");
let shown = null;

function show(point) {
  shown = point;
  tip.hidden = !point;
  if (!point) return;
  tip.textContent = point.ariaLabel;
  const at = point.getBoundingClientRect(), gap = 8;
  const above = at.top - tip.offsetHeight - gap;
  const left = Math.min(at.left + at.width / 2 - tip.offsetWidth / 2, innerWidth - tip.offsetWidth - gap);
  tip.style.left = `${Math.max(gap, left)}px`;
  tip.style.top = `${above > gap ? above : at.bottom + gap}px`;
}

for (const picture of document.querySelectorAll("figure")) {
  const points = [...picture.querySelectorAll(".point")];
  const places = new Map(points.map((point) => [point, point.getBoundingClientRect().left]));
  points.sort((a, b) => places.get(a) - places.get(b));
  points.forEach((point, i) => {
    const title = point.querySelector("title");
    point.ariaLabel = title.textContent;
    point.setAttribute("tabindex", i ? -1 : 0); // one stop of the Tab key a figure
    title.remove(); // or the browser would show it, too
    point.addEventListener("pointerenter", () => show(point));
    point.addEventListener("focus", () => show(point));
    for (const left of ["pointerleave", "blur"]) point.addEventListener(left, () => show(null));
    point.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      const next = step && points[i + step];
      if (!next) return;
      event.preventDefault();
      point.setAttribute("tabindex", -1);
      next.setAttribute("tabindex", 0);
      next.focus();
    });
  });
}
addEventListener("keydown", (event) => event.key === "Escape" && show(null));
addEventListener("scroll", () => show(shown), { passive: true, capture: true }); // figures scroll, too

// -- texts to be copied ----------------------------------------------------------------------------------
for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.source);
    let copied = true;
    try {
      await navigator.clipboard.writeText(source.textContent);
    } catch {
      source.closest("details").open = true;
      getSelection().selectAllChildren(source);
      copied = document.execCommand("copy");
    }
    document.getElementById("copied").textContent = copied ? "Copied." : "Marked: press Ctrl+C.";
  });
}
