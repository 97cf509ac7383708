// Draws the page from its content, the JSON beside this script. Everything in it is data: it becomes
// text nodes and numbers of charts, never markup.
"use strict";

const INK = "currentColor";
const BLOCKS = { facts, table, notes, bars: figure, lines: figure };
const CHARTS = { bars, lines };

function element(tag, name, ...children) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...children);
  return made;
}

function facts(block) {
  const rows = block.rows.flatMap(({ name, text, code }) => [
    element("dt", "", name),
    element("dd", "", code ? element("code", "", text) : text),
  ]);
  return element("dl", "", ...rows);
}

function cell(tag, lines, scope) {
  const [first = "", ...below] = lines;
  const made = element(tag, "", first, ...below.map((line) => element("span", "below", line)));
  if (scope) made.scope = scope;
  return made;
}

function table(block) {
  const heads = [[""], ...block.columns].map((lines) => cell("th", lines, "col"));
  const rows = block.rows.map((row) =>
    element("tr", "", cell("th", row.head, "row"), ...row.cells.map((lines) => cell("td", lines))),
  );
  const made = element("table", "", element("thead", "", element("tr", "", ...heads)));
  made.append(element("tbody", "", ...rows));
  const scroll = element("div", "scroll", made);
  scroll.tabIndex = 0; // the keyboard can scroll it
  if (!block.title) return scroll;
  made.setAttribute("aria-label", block.title);
  return element("div", "titled", element("h3", "", block.title), scroll);
}

function notes(block) {
  return element("ul", "notes", ...block.lines.map((line) => element("li", "", line)));
}

function figure(block) {
  const place = element("div", "chart");
  const legend = block.legend.map(({ name, colour }) => element("li", colour, name));
  let width = 0;
  const draw = () => {
    if (!place.clientWidth || place.clientWidth === width) return;
    width = place.clientWidth;
    place.replaceChildren(CHARTS[block.kind](block, width));
  };
  // A frame later: an observer that changes the size of what it observes is an error.
  new ResizeObserver(() => requestAnimationFrame(draw)).observe(place);
  return element(
    "figure",
    block.kind,
    element("h3", "", block.title),
    element("ul", "legend", ...legend),
    place,
    element("figcaption", "", block.caption),
    element("details", "", element("summary", "", "The numbers"), table(block.numbers)),
  );
}

const paint = (one) => `var(--${one.colour})`;

// One line of the chart per row: the name of a group, or one of its bars.
function bars(block, width) {
  const heads = block.rows.filter((row) => row.group !== undefined);
  const drawn = block.rows.filter((row) => row.value !== undefined);
  const spread = drawn.filter((row) => row.std !== null);
  const chances = block.spans.filter((span) => span.chance !== null);
  const longest = Math.max(...drawn.map((row) => row.label.length));
  const marginLeft = Math.min(16 + 6.5 * longest, width / 3);
  return Plot.plot({
    ariaLabel: block.title,
    width,
    height: 21 * block.rows.length + 50,
    marginLeft,
    marginRight: 44,
    marginTop: 0,
    marginBottom: 40,
    x: { domain: [0, 1], label: block.x, labelAnchor: "center", labelArrow: "none" },
    y: { type: "band", domain: block.rows.map((row) => row.id), padding: 0.12, axis: null },
    marks: [
      Plot.gridX({ strokeOpacity: 0.12 }),
      Plot.barX(drawn, { x: "value", y: "id", fill: paint }),
      Plot.barX(spread, {
        x1: (row) => Math.max(0, row.value - row.std),
        x2: (row) => Math.min(1, row.value + row.std),
        y: "id", fill: INK, fillOpacity: 0.3, insetTop: 5, insetBottom: 5,
      }),
      Plot.ruleY(drawn, { x1: "low", x2: "high", y: "id", stroke: INK, strokeWidth: 1.2, clip: true }),
      ...["low", "high"].map((end) =>
        Plot.tickX(drawn, { x: end, y: "id", stroke: INK, strokeWidth: 1.2, insetTop: 5, insetBottom: 5, clip: true }),
      ),
      Plot.ruleX(block.spans, { x: 0, y1: "first", y2: "last", stroke: INK }),
      Plot.ruleX(chances, {
        x: "chance", y1: "first", y2: "last", stroke: INK, strokeDasharray: "3,3",
      }),
      Plot.text(heads, {
        y: "id", text: "group", frameAnchor: "left", textAnchor: "start", dx: 6 - marginLeft, dy: 2,
        fontWeight: 600, stroke: "var(--paper)", strokeWidth: 6, fill: INK,
      }),
      Plot.text(drawn, {
        y: "id", text: "label", frameAnchor: "left", textAnchor: "end", dx: -8,
        lineWidth: (marginLeft - 10) / 12, textOverflow: "ellipsis-end",
      }),
      Plot.text(drawn, { y: "id", text: "shown", frameAnchor: "right", textAnchor: "end", dx: 42 }),
      Plot.tip(drawn, Plot.pointerY({ x: "value", y: "id", title: "tip", maxRadius: 30 })),
    ],
  });
}

function lines(block, width) {
  const points = block.series.flatMap((one) => one.points.map((point) => ({ ...point, ...one })));
  const fits = block.series.filter((one) => one.fit);
  const bounds = points.filter((point) => point.low !== null);
  const x = [...new Set(points.map((point) => point.x))].sort(d3.ascending);
  const all = d3.extent(points.flatMap(({ y, low, high }) => [y, low ?? y, high ?? y]));
  // An interval over two seeds may be longer than the scale of what is measured.
  const ends = block.y.log ? all : [Math.max(0, all[0]), Math.min(1, all[1])];
  const room = block.y.log ? 1.03 : 0;
  const few = x.length <= 8;
  return Plot.plot({
    ariaLabel: block.title,
    width,
    height: 300,
    marginLeft: 52,
    marginRight: 24,
    marginTop: 30,
    marginBottom: 44,
    inset: 10,
    x: {
      type: block.x.log ? "log" : "linear", label: block.x.label, labelAnchor: "center",
      labelArrow: "none", tickSize: 4, tickFormat: block.x.log ? ".3~s" : "~r",
      ticks: few ? x : undefined,
    },
    y: {
      type: block.y.log ? "log" : "linear", label: block.y.label, labelArrow: "none", tickSize: 4,
      domain: room ? [ends[0] / room, ends[1] * room] : ends, nice: !room,
      ticks: room ? d3.ticks(...ends, 5) : 5, tickFormat: ".2f",
    },
    marks: [
      Plot.gridY({ strokeOpacity: 0.12, ticks: room ? d3.ticks(...ends, 5) : 5 }),
      Plot.frame({ anchor: "bottom", strokeOpacity: 0.5 }),
      Plot.ruleX(bounds, { x: "x", y1: "low", y2: "high", stroke: paint, strokeWidth: 1.5, clip: true }),
      ...(fits.length
        ? fits.map((one) => Plot.line(one.fit, { stroke: paint(one), strokeDasharray: "4,4" }))
        : [Plot.lineY(points, { x: "x", y: "y", z: "name", stroke: paint, strokeWidth: 1.5 })]),
      Plot.dot(points, { x: "x", y: "y", fill: paint, r: 4 }),
      Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: "tip" })),
    ],
  });
}

function blocksOf(section) {
  const made = section.blocks.map((block) => BLOCKS[block.kind](block));
  return made.some((one) => one.tagName === "FIGURE") ? [element("div", "charts", ...made)] : made;
}

function drawn(section) {
  if (section.folded) {
    return element("details", "run", element("summary", "", section.title), ...blocksOf(section));
  }
  const heading = section.title ? [element("h2", "", section.title)] : [];
  return element("section", "", ...heading, ...blocksOf(section));
}

const content = JSON.parse(document.getElementById("content").textContent);
document
  .getElementById("page")
  .replaceChildren(element("h1", "", content.title), ...content.sections.map(drawn));
// On paper nothing can be opened.
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details")) each.open = true;
});
