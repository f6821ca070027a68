// All trials: one table and parallel axes, linked with the marks of the figures by the trial's
// number, which a mark's title begins with ("#34: ...").
{
const { columns, rows, curves, reference, dashboard, words } = JSON.parse(document.getElementById("trials").textContent);
const root = document.getElementById("explorer");
const ROW = 30; // pixels
const VALUE = 2; // the place of the objective's column
const sign = columns[VALUE].better;
const make = (tag, attributes = {}, ...children) => {
  const space = ["svg", "path"].includes(tag) ? "2000/svg" : "1999/xhtml";
  const element = document.createElementNS(`http://www.w3.org/${space}`, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};
const said = (text, values) => text.replace(/\{(\w+)\}/g, (_, key) => values[key]);
const shownValue = (column, value) =>
  value === null ? "–" : columns[column].number && columns[column].digits !== null ? value.toFixed(columns[column].digits) : (columns[column].names[value] ?? String(value));
const texts = (column, value) => [String(value), shownValue(column, value)].map((each) => each.toLowerCase()); // as in a study file, and as shown
const best = (a, b) => (a[VALUE] === null) - (b[VALUE] === null) || sign * (b[VALUE] - a[VALUE]) || a[0] - b[0];

// --- what is kept ---
const ranges = new Map(), hidden = new Set(); // by column, [low, high] of a brush on its axis; the columns that are not shown
let text = "", order = null, pins = [], pointed = null, kept = [];
const named = (name) => {
  const wanted = name.toLowerCase();
  const names = columns.map(({ key, label }) => [key.toLowerCase(), label.toLowerCase()]);
  const exact = names.findIndex((pair) => pair.includes(wanted));
  return exact >= 0 ? exact : names.findIndex((pair) => pair.some((each) => each.startsWith(wanted)));
};
const COMPARED = { "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b };
const test = (word) => {
  const parts = word.match(/^([^<>=]+)(<=|>=|<|>|=)(.+)$/);
  if (!parts) {
    const low = word.toLowerCase();
    return (row) => `#${row[0]}` === low || row.some((value, place) => !columns[place].number && texts(place, value).some((each) => each.includes(low)));
  }
  const [, name, sign, wanted] = parts, place = named(name);
  if (place < 0) throw new RangeError(said(words.unknown, { name, known: columns.map(({ key }) => key).join(", ") }));
  const number = parseFloat(wanted);
  if (sign !== "=") return (row) => row[place] !== null && COMPARED[sign](row[place], number);
  if (columns[place].number) return (row) => row[place] === number;
  return (row) => texts(place, row[place]).some((each) => each.startsWith(wanted.toLowerCase()));
};
const update = () => {
  let tests = [];
  try {
    tests = text.split(/\s+/).filter(Boolean).map(test);
    input.removeAttribute("aria-invalid");
  } catch (error) {
    input.setAttribute("aria-invalid", "true");
    return void (counter.textContent = error.message);
  }
  const within = [...ranges].map(([place, [low, high]]) => (row) => {
    const at = axes.find((axis) => axis.place === place).at(row);
    return at !== null && at >= low && at <= high;
  });
  kept = rows.filter((row) => [...tests, ...within].every((each) => each(row)));
  kept.sort(order === null ? best : (a, b) => {
    const [x, y] = [a[order.place], b[order.place]];
    if (x === null || y === null) return (x === null) - (y === null);
    return order.way * (columns[order.place].number ? x - y : String(x).localeCompare(String(y))) || best(a, b);
  });
  counter.textContent = said(words.of, { n: kept.length.toLocaleString(), all: rows.length.toLocaleString() });
  scroller.scrollTop = 0;
  drawRows();
  drawLines();
};

// --- the table: only the rows in sight are in the page ---
const input = make("input", { type: "search", placeholder: words.filter, "aria-label": words.filter, class: "filter" });
const counter = make("output", { class: "count", "aria-live": "polite" });
const heading = make("tr"), body = make("tbody");
const table = make("table", { class: "all", "aria-rowcount": rows.length }, make("thead", {}, heading), body);
const scroller = make("div", { class: "rows", tabindex: "0", role: "region", "aria-label": words.trial }, table);
const chooser = make("details", { class: "choose" }, make("summary", {}, words.columns));
const spark = (number, width = 84, height = 22) => {
  const points = curves[number] ?? [];
  const path = points.map((level, i) => `${((width - 4) * i) / Math.max(points.length - 1, 1) + 2} ${height - 2 - ((height - 4) * level) / 100}`);
  return make("svg", { class: "spark", width, height, "aria-hidden": "true" }, make("path", { d: `M${path.join("L")}${path.length === 1 ? "h2" : ""}` }));
};
const linked = make("input", { type: "checkbox" }); // a link to a server that is not there would be a fault
linked.addEventListener("change", () => { drawRows(); drawPins(); });
const content = (place, row) => {
  const text = shownValue(place, row[place]);
  return place || !linked.checked ? text : make("a", { href: dashboard + row[0], target: "_blank" }, text);
};
const visible = () => columns.map((_, place) => place).filter((place) => !hidden.has(place));
const drawHeading = () => {
  heading.replaceChildren(...visible().map((place) => {
    const button = make("button", { type: "button" }, columns[place].label);
    button.addEventListener("click", () => {
      const first = place === VALUE ? -sign : 1;
      order = order?.place !== place ? { place, way: first } : order.way === first ? { place, way: -first } : null;
      drawHeading();
      update();
    });
    const cell = make("th", { scope: "col" }, button);
    if (order?.place === place) cell.setAttribute("aria-sort", order.way > 0 ? "ascending" : "descending");
    return cell;
  }), make("th", { scope: "col" }, words.curve));
};
const drawRows = () => {
  const first = Math.max(Math.floor(scroller.scrollTop / ROW) - 5, 0);
  const last = Math.min(first + Math.ceil(scroller.clientHeight / ROW) + 10, kept.length);
  const space = (count) => make("tr", { "aria-hidden": "true" }, make("td", { colspan: visible().length + 1, style: `height:${count * ROW}px;padding:0;border:0` }));
  const lines = kept.slice(first, last).map((row, place) => {
    const cells = visible().map((column) => content(column, row)).concat(spark(row[0])).map((each) => make("td", {}, each));
    const line = make("tr", { "data-trial": row[0], "aria-rowindex": first + place + 1, tabindex: "0" }, ...cells);
    line.classList.toggle("pinned", pins.includes(row[0]));
    line.classList.toggle("pointed", row[0] === pointed);
    return line;
  });
  body.replaceChildren(space(first), ...lines, space(kept.length - last));
};

// --- parallel axes ---
const canvas = make("canvas", { class: "lines", role: "img", "aria-label": words.brush });
const SIDE = 46, TOP = 34, HEIGHT = 250, AXIS = 76; // pixels; AXIS: between two axes, at least
const axes = columns.map((column, place) => ({ ...column, place })).filter(({ axis, place }) => axis || place === VALUE).map((axis) => {
  const values = rows.map((row) => row[axis.place]).filter((value) => value !== null);
  if (!axis.number) {
    const levels = [...new Set(values)].sort();
    return { ...axis, ends: [levels[0], levels.at(-1)], levels, at: (row) => (row[axis.place] === null ? null : levels.length > 1 ? levels.indexOf(row[axis.place]) / (levels.length - 1) : 0.5) };
  }
  // The objective's axis shows the better half and what lies close below: one bad trial would flatten all.
  const sorted = values.slice().sort((a, b) => a - b), quantile = (share) => sorted[Math.round(share * (sorted.length - 1))];
  let [low, high] = [sorted[0], sorted.at(-1)];
  if (axis.place === VALUE && sign > 0) low = Math.max(low, quantile(0.5) - 2 * (high - quantile(0.5)));
  if (axis.place === VALUE && sign < 0) high = Math.min(high, quantile(0.5) + 2 * (quantile(0.5) - low));
  const scale = axis.log ? Math.log : (value) => value;
  if (axis.place === VALUE && sign < 0) [low, high] = [high, low]; // better is above
  const span = scale(high) - scale(low) || 1;
  return { ...axis, ends: [low, high], at: (row) => (row[axis.place] === null ? null : Math.min(Math.max((scale(row[axis.place]) - scale(low)) / span, 0), 1)) };
});
const objective = axes.find(({ place }) => place === VALUE);
axes.push(axes.splice(axes.indexOf(objective), 1)[0]);
canvas.style.minWidth = `${AXIS * (axes.length - 1) + 2 * SIDE}px`; // a phone scrolls, or labels would overlap
const x = (index) => SIDE + ((canvas.clientWidth - 2 * SIDE) * index) / Math.max(axes.length - 1, 1);
const y = (at) => TOP + HEIGHT * (1 - at);
const colour = (name) => getComputedStyle(document.body).getPropertyValue(name);
const line = (context, row) => {
  context.beginPath();
  let begun = false;
  axes.forEach((axis, index) => {
    const at = axis.at(row);
    if (at !== null) context[begun ? "lineTo" : "moveTo"](x(index), y(at));
    begun = at !== null;
  });
  context.stroke();
};
const drawLines = () => {
  const ratio = devicePixelRatio, width = canvas.clientWidth, context = canvas.getContext("2d");
  if (!width) return;
  Object.assign(canvas, { width: width * ratio, height: (TOP + HEIGHT + 34) * ratio });
  context.scale(ratio, ratio);
  const chosen = new Set(kept);
  context.globalAlpha = Math.max(0.04, Math.min(0.25, 40 / rows.length));
  context.strokeStyle = colour("--soft");
  for (const row of rows) if (!chosen.has(row)) line(context, row);
  context.globalAlpha = Math.max(0.15, Math.min(0.7, 150 / Math.max(kept.length, 1)));
  for (const row of kept.slice().reverse()) {
    const good = objective.at(row) ?? 0;
    context.strokeStyle = `hsl(${260 - 210 * good} 70% ${35 + 15 * good}%)`; // violet is bad, yellow is good
    line(context, row);
  }
  Object.assign(context, { globalAlpha: 1, lineWidth: 2.5, strokeStyle: colour("--text") });
  for (const row of rows) if (pins.includes(row[0]) || row[0] === pointed) line(context, row);
  if (reference) context.setLineDash([6, 4]), line(context, reference);
  context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  axes.forEach((axis, index) => {
    context.fillStyle = colour("--text");
    context.fillRect(x(index) - 0.5, TOP, 1, HEIGHT);
    const room = Math.max((width - 2 * SIDE) / Math.max(axes.length - 1, 1) - 6, 40);
    const edge = index === 0 ? "left" : index === axes.length - 1 ? "right" : "center";
    context.textAlign = edge;
    context.fillText(axis.label, { left: 2, right: width - 2, center: x(index) }[edge], 12, edge === "center" ? room : room / 2 + SIDE);
    context.textAlign = "center";
    context.fillStyle = colour("--soft");
    const ends = axis.ends.map((end) => (end === undefined ? "" : shownValue(axis.place, end)));
    ends.forEach((end, above) => context.fillText(end, x(index), above ? TOP - 6 : y(0) + 16, room));
    const range = ranges.get(axis.place);
    if (!range) return;
    context.fillStyle = colour("--link");
    context.globalAlpha = 0.35;
    context.fillRect(x(index) - 7, y(range[1]), 14, y(range[0]) - y(range[1]));
    context.globalAlpha = 1;
  });
};
let brush = null;
const axisAt = ({ offsetX }) => axes.findIndex((_, index) => Math.abs(x(index) - offsetX) < 12);
const rowAt = ({ offsetX, offsetY }) => {
  const after = axes.findIndex((_, index) => x(index) >= offsetX);
  if (after < 1) return null;
  const share = (offsetX - x(after - 1)) / (x(after) - x(after - 1));
  let found = null, least = 8;
  for (const row of kept) {
    const [a, b] = [axes[after - 1].at(row), axes[after].at(row)];
    const far = Math.abs(y(a + share * (b - a)) - offsetY);
    if (a !== null && b !== null && far < least) [found, least] = [row[0], far];
  }
  return found;
};
const level = ({ offsetY }) => Math.min(Math.max(1 - (offsetY - TOP) / HEIGHT, 0), 1);
canvas.addEventListener("pointerdown", (event) => {
  const index = axisAt(event);
  if (index < 0) return pin(rowAt(event));
  canvas.setPointerCapture(event.pointerId);
  brush = { place: axes[index].place, start: level(event) };
});
canvas.addEventListener("pointermove", (event) => {
  if (!brush) return point(axisAt(event) < 0 ? rowAt(event) : null);
  const end = level(event);
  if (Math.abs(end - brush.start) > 0.01) ranges.set(brush.place, [Math.min(brush.start, end), Math.max(brush.start, end)]);
  drawLines();
});
canvas.addEventListener("pointerup", (event) => {
  if (!brush) return;
  if (Math.abs(level(event) - brush.start) <= 0.01) ranges.delete(brush.place);
  brush = null;
  update();
});
canvas.addEventListener("pointerleave", () => !brush && point(null));

// --- pointing and pinning, here and in the figures ---
const panel = make("div", { class: "pins", "aria-live": "polite" });
for (const title of document.querySelectorAll(".picture svg title")) {
  const number = title.textContent.match(/^#(\d+)\b/)?.[1];
  if (number) title.parentNode.dataset.trial = number;
}
const numberOf = (target) => {
  const found = target.closest?.("[data-trial]");
  return found ? Number(found.dataset.trial) : null;
};
const dress = (number, name, on) => document.querySelectorAll(`[data-trial="${number}"]`).forEach((mark) => mark.classList.toggle(name, on));
const point = (number) => {
  if (number === pointed) return;
  dress(pointed, "pointed", false);
  pointed = number;
  dress(pointed, "pointed", true);
  drawLines();
};
const pin = (number) => {
  if (number === null || !rows.some((row) => row[0] === number)) return;
  pins.forEach((each) => dress(each, "pinned", false));
  pins = pins.includes(number) ? pins.filter((each) => each !== number) : [...pins.slice(-1), number];
  pins.forEach((each) => dress(each, "pinned", true));
  drawPins();
  drawRows();
  drawLines();
};
const drawPins = () => {
  if (!pins.length) return panel.replaceChildren(make("p", {}, words.pin));
  const chosen = pins.map((number) => rows.find((row) => row[0] === number));
  const line = (name, cells) => make("tr", {}, make("th", { scope: "row" }, name), ...cells.map((each) => make("td", {}, each)));
  const lines = columns.map(({ label }, place) => {
    const found = line(label, chosen.map((row) => content(place, row)));
    found.classList.toggle("differs", chosen.length > 1 && chosen[0][place] !== chosen[1][place]);
    return found;
  });
  lines.push(line(words.curve, chosen.map((row) => spark(row[0], 200, 70))));
  const clear = make("button", { type: "button" }, words.unpin);
  clear.addEventListener("click", () => [...pins].forEach(pin));
  panel.replaceChildren(make("h3", {}, words.pinned), make("table", {}, make("tbody", {}, ...lines)), clear);
};
for (const name of ["pointerover", "focusin"]) document.addEventListener(name, ({ target }) => target !== canvas && point(numberOf(target)));
document.addEventListener("click", ({ target }) => target !== canvas && !target.closest?.("a") && pin(numberOf(target)));
body.addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  pin(numberOf(event.target));
  body.querySelector(`[data-trial="${pointed}"]`)?.focus();
});

// --- together ---
columns.forEach(({ label }, place) => {
  const check = make("input", { type: "checkbox", checked: "" });
  check.addEventListener("change", () => {
    hidden[check.checked ? "delete" : "add"](place);
    drawHeading();
    drawRows();
  });
  if (place) chooser.append(make("label", {}, check, ` ${label}`));
});
const csv = make("button", { type: "button" }, words.csv);
csv.addEventListener("click", () => {
  const quoted = (value) => (value === null ? "" : /[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
  const lines = [columns.map(({ key }) => quoted(key)), ...kept.map((row) => row.map(quoted))];
  const link = make("a", { download: "trials-shown.csv", href: URL.createObjectURL(new Blob([lines.map((line) => line.join(",")).join("\n") + "\n"], { type: "text/csv" })) });
  link.click();
  URL.revokeObjectURL(link.href);
});
input.addEventListener("input", () => { text = input.value; update(); });
scroller.addEventListener("scroll", drawRows, { passive: true });
addEventListener("resize", () => { drawRows(); drawLines(); });
root.append(make("p", { class: "hint" }, words.brush), make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": words.brush }, canvas), make("div", { class: "bar" }, input, counter, chooser, csv, make("label", {}, linked, ` ${words.link}`)), scroller, panel);
root.hidden = false;
drawHeading();
drawPins();
update();
}
