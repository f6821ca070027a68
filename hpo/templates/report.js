// Tables sort by a click on a header: by the numbers in the cells where all of them begin with one, as
// text otherwise.
const NUMBER = /(?<![^\s(\[])[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?/gi;
const UNKNOWN = /^(–|-|\d+ diverged)?$/;
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const key = (row, column) => {
    const text = row.cells[column].textContent.replaceAll("−", "-").trim();
    const numbers = (text.match(NUMBER) ?? []).map((number) => parseFloat(number.replaceAll(",", "")));
    return { row, text, numbers };
  };
  const asText = (a, b) => a.text.localeCompare(b.text, undefined, { numeric: true });
  const asNumbers = (a, b) => {
    for (let i = 0; i < Math.min(a.numbers.length, b.numbers.length); i++) {
      if (a.numbers[i] !== b.numbers[i]) return a.numbers[i] - b.numbers[i];
    }
    return a.numbers.length - b.numbers.length;
  };
  for (const header of table.querySelectorAll("th[data-column]")) {
    const column = Number(header.dataset.column);
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      // Greatest first, then least first, then as it was.
      const next = { none: "descending", descending: "ascending", ascending: "none" };
      const order = next[header.getAttribute("aria-sort") ?? "none"];
      for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
      if (order === "none") return body.append(...original);
      header.setAttribute("aria-sort", order);
      const rows = original.map((row) => key(row, column));
      const known = rows.filter(({ text }) => !UNKNOWN.test(text));
      const numeric = known.every(({ text }) => /^(median )?[-+]?(\d|\.\d)/.test(text));
      const compare = numeric ? asNumbers : asText;
      known.sort((a, b) => (order === "ascending" ? compare(a, b) : compare(b, a)));
      const unknown = rows.filter((entry) => !known.includes(entry));
      body.append(...[...known, ...unknown].map(({ row }) => row));
    });
  }
}
