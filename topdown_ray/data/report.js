"use strict";
// Tables: a click on a heading sorts, a field searches, a link downloads the CSV file embedded in the page.

const numberIn = text => {
  const found = text.replaceAll(",", "").match(/[-+]?\d+(\.\d+)?(e[-+]?\d+)?/i);
  return found ? Number(found[0]) : Number.NEGATIVE_INFINITY;
};

function sortBy(table, column, numeric, descending) {
  const value = row => row.cells[column].textContent;
  const compare = numeric
    ? (a, b) => numberIn(value(a)) - numberIn(value(b))
    : (a, b) => value(a).localeCompare(value(b), "en", { numeric: true });
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter(row => !row.classList.contains("group"));
    rows.sort((a, b) => (descending ? compare(b, a) : compare(a, b)));
    body.append(...rows);
  }
}

for (const table of document.querySelectorAll("table.data")) {
  const headings = [...table.tHead.rows[0].cells];
  for (const heading of headings) {
    heading.querySelector("button").addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach(other => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortBy(table, heading.cellIndex, heading.classList.contains("n"), descending);
    });
  }
}

for (const field of document.querySelectorAll("input.search")) {
  const table = document.getElementById(field.getAttribute("aria-controls"));
  field.parentElement.hidden = false;
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const body of table.tBodies) {
      const heading = body.querySelector(".group")?.textContent.toLowerCase() ?? "";
      let any = false;
      for (const row of body.querySelectorAll("tr:not(.group)")) {
        const text = `${heading} ${row.textContent.toLowerCase()}`;
        row.hidden = !wanted.every(word => text.includes(word));
        any ||= !row.hidden;
        found += row.hidden ? 0 : 1;
      }
      body.hidden = !any;
    }
    const count = found === 0 ? "No row matches." : `${found} ${found === 1 ? "row matches" : "rows match"}.`;
    field.parentElement.querySelector("output").textContent = wanted.length ? count : "";
  });
}

for (const link of document.querySelectorAll("a[data-csv]")) {
  link.addEventListener("click", async event => {
    if (typeof DecompressionStream === "undefined") return; // the link then opens the file next to the page
    event.preventDefault();
    const bytes = Uint8Array.from(atob(link.dataset.csv), letter => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const file = new Blob([await new Response(stream).arrayBuffer()], { type: "text/csv" });
    const saved = document.createElement("a");
    saved.href = URL.createObjectURL(file);
    saved.download = link.download;
    saved.click();
    setTimeout(() => URL.revokeObjectURL(saved.href), 10_000);
  });
}
