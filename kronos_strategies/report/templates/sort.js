"use strict";

// Sorting: numbers from the largest, text from A, and reversed on the second click; undefined values stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const numbers = head.classList.contains("number");
    const [first, other] = numbers ? ["descending", "ascending"] : ["ascending", "descending"];
    const order = head.getAttribute("aria-sort") === first ? other : first;
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => row.cells[column].dataset.key;
    const compare = (a, b) => {
      if (!key(a) || !key(b)) return !key(a) - !key(b);
      return sign * (numbers ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b)));
    };
    heads.forEach((cell) => cell.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(compare));
  }));
}
