// Tables sort by a click on a header: by the numbers that the cells hold, or else by their texts.
const UNKNOWN = ["", "–"];
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const asText = (a, b) => a.text.localeCompare(b.text, undefined, { numeric: true });
  const asNumbers = (a, b) => a.number - b.number;
  for (const header of table.querySelectorAll("th[data-column]")) {
    const column = Number(header.dataset.column);
    const button = document.createElement("button");
    button.type = "button";
    button.title = document.body.dataset.sort;
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      // Greatest first, then least first, then as it was.
      const next = { none: "descending", descending: "ascending", ascending: "none" };
      const order = next[header.getAttribute("aria-sort") ?? "none"];
      for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
      if (order === "none") return body.append(...original);
      header.setAttribute("aria-sort", order);
      const rows = original.map((row) => {
        const { textContent, dataset } = row.cells[column];
        return { row, text: textContent.trim(), number: parseFloat(dataset.value) };
      });
      const numeric = rows.some(({ number }) => !isNaN(number));
      const compare = numeric ? asNumbers : asText;
      const isKnown = ({ text, number }) => (numeric ? !isNaN(number) : !UNKNOWN.includes(text));
      const known = rows.filter(isKnown);
      known.sort((a, b) => (order === "ascending" ? compare(a, b) : compare(b, a)));
      const unknown = rows.filter((entry) => !known.includes(entry));
      body.append(...[...known, ...unknown].map(({ row }) => row));
    });
  }
}

// A mark's text in a box: at a tap or click on it or close by, or by Enter and the arrow keys.
const REACH = 16; // pixels
const box = document.createElement("div");
box.className = "tip";
box.setAttribute("role", "status");
document.body.append(box);
let shown = null;
const marksOf = (figure) => [...figure.querySelectorAll("svg title")].map((title) => title.parentNode);
const place = () => {
  if (!shown) return;
  const at = shown.getBoundingClientRect();
  const left = at.x + at.width / 2 - box.offsetWidth / 2;
  const above = at.y - box.offsetHeight - 8;
  box.style.left = `${Math.max(4, Math.min(left, document.documentElement.clientWidth - box.offsetWidth - 4))}px`;
  box.style.top = `${above > 4 ? above : at.bottom + 8}px`;
};
const show = (mark) => {
  shown?.classList.remove("shown");
  shown = mark;
  box.textContent = mark?.querySelector("title").textContent ?? "";
  mark?.classList.add("shown");
  place();
};
const distance = (mark, x, y) => {
  const at = mark.getBoundingClientRect();
  return Math.hypot(at.x + at.width / 2 - x, at.y + at.height / 2 - y);
};
const closest = (figure, x, y) => {
  const near = marksOf(figure).map((mark) => [distance(mark, x, y), mark]);
  return near.filter(([far]) => far < REACH).sort(([a], [b]) => a - b)[0]?.[1];
};
addEventListener("click", ({ target, clientX, clientY }) => {
  const figure = target.closest(".picture");
  const mark = figure && (marksOf(figure).find((each) => each.contains(target)) ?? closest(figure, clientX, clientY));
  show(mark === shown ? null : (mark ?? null));
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") return show(null);
  const figure = event.target.closest?.(".picture");
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!figure || !(event.key === "Enter" || (step && shown))) return;
  const marks = marksOf(figure);
  if (!marks.length) return;
  event.preventDefault();
  const next = marks[(marks.indexOf(shown) + (step ?? 1) + marks.length) % marks.length];
  next.scrollIntoView({ block: "nearest", inline: "nearest" });
  show(next);
});
addEventListener("scroll", place, { capture: true, passive: true });
addEventListener("resize", place);

// All conclusions are opened or closed at once, on paper, too.
for (const button of document.querySelectorAll(".every")) {
  const each = [...button.closest("figure").querySelectorAll("details")], texts = [button.textContent, button.dataset.close];
  button.hidden = false;
  button.addEventListener("click", () => {
    const open = each.some((one) => !one.open);
    for (const one of each) one.open = open;
    button.textContent = texts[Number(open)];
  });
}

// The winner's configuration is copied.
for (const button of document.querySelectorAll(".card .copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.closest(".card").querySelector("code").textContent + "\n");
    button.textContent = button.dataset.done;
  });
}

// Each picture as a file: SVG, PNG, and the values that its marks say.
const save = (name, content) => {
  const link = document.createElement("a");
  link.download = name;
  link.href = URL.createObjectURL(content);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};
for (const figure of document.querySelectorAll("figure.picture[data-file]")) {
  const name = figure.dataset.file.replace(/\.svg$/, "");
  const drawing = figure.querySelector("svg");
  const source = () => {
    const copy = drawing.cloneNode(true);
    const [, , width, height] = drawing.getAttribute("viewBox").split(" ").map(Number);
    for (const [key, value] of Object.entries({ xmlns: "http://www.w3.org/2000/svg", width, height })) copy.setAttribute(key, value);
    // Letters that an earlier picture of the page defines.
    const letters = [...copy.querySelectorAll("use")].map((use) => use.getAttribute("href") ?? use.getAttribute("xlink:href"));
    const missing = [...new Set(letters)].filter((id) => id && !copy.querySelector(CSS.escape ? `[id="${id.slice(1)}"]` : id));
    const shared = document.createElementNS("http://www.w3.org/2000/svg", "defs");
    shared.append(...missing.map((id) => document.getElementById(id.slice(1))?.cloneNode(true)).filter(Boolean));
    copy.prepend(shared);
    return { text: new XMLSerializer().serializeToString(copy), width, height };
  };
  const png = () => {
    const { text, width, height } = source(), image = new Image(), canvas = document.createElement("canvas");
    Object.assign(canvas, { width: 3 * width, height: 3 * height });
    image.onload = () => {
      const context = canvas.getContext("2d");
      context.fillStyle = "#fff";
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(`${name}.png`, blob));
    };
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  };
  const values = [...drawing.querySelectorAll("title")].map((title) => title.textContent.replaceAll("\n", " "));
  const kinds = { SVG: () => save(`${name}.svg`, new Blob([source().text], { type: "image/svg+xml" })), PNG: png };
  if (values.length) kinds.TXT = () => save(`${name}.txt`, new Blob([values.join("\n") + "\n"], { type: "text/plain" }));
  const bar = document.createElement("p");
  bar.className = "save";
  for (const [kind, act] of Object.entries(kinds)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = kind;
    button.setAttribute("aria-label", `${name}: ${kind}`);
    button.addEventListener("click", act);
    bar.append(button);
  }
  figure.append(bar);
}
