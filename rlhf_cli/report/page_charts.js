// Charts of the page, drawn by Plot. The numbers of each stand below it as a table.
"use strict";

const INK = "currentColor";
const CHARTS = { bars, lines, dots };

function figure(block) {
  const place = element("div", "chart");
  let width = 0;
  const draw = () => {
    if (!place.clientWidth || place.clientWidth === width) return;
    width = place.clientWidth;
    place.replaceChildren(CHARTS[block.kind](block, width));
  };
  // A frame later: an observer that changes the size of what it observes is an error.
  new ResizeObserver(() => requestAnimationFrame(draw)).observe(place);
  const legend = block.legend.map(({ name, colour, dashed }) =>
    element("li", dashed ? `${colour} dashed` : colour, name),
  );
  return element(
    "figure",
    block.small ? "small" : block.kind,
    ...(block.title ? [element("h4", "", block.title)] : []),
    ...(legend.length ? [element("ul", "legend", ...legend)] : []),
    place,
    element("figcaption", "", block.caption),
    numbers(block),
  );
}

// The table of a chart's numbers, made when it is opened where it repeats points that are there anyway.
function numbers(block) {
  const made = element("details", block.numbers ? "" : "points", element("summary", "", "The numbers"));
  if (block.numbers) {
    made.append(table(block.numbers));
  } else {
    made.addEventListener("toggle", () => made.append(table(numbersOf(block))), { once: true });
  }
  return made;
}

function numbersOf(block) {
  const shown = (number) => [d3.format(".4~g")(number)];
  const rows = block.series.flatMap((one) =>
    one.points.map(({ x, y }) => ({ head: [one.name], cells: [shown(x), shown(y)] })),
  );
  return { kind: "table", title: "", columns: [[block.x.label], [block.y.label || block.title]], rows };
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

// A line of the chart per name, and in it a dot with its interval per series.
function dots(block, width) {
  const perLine = d3.group(block.points, (one) => one.line);
  const most = d3.max(perLine.values(), (some) => some.length);
  const placed = [...perLine.values()].flatMap((some) =>
    some.map((one, i) => ({ ...one, y: one.line + (i + 1) / (some.length + 1) })),
  );
  const bounds = placed.filter((one) => isKnown(one.low) && isKnown(one.high));
  const longest = d3.max(block.lines, (name) => name.length);
  const marginLeft = Math.min(16 + 6.5 * longest, width * 0.4);
  const wrapped = d3.max(block.lines, (name) => Math.ceil((6.5 * name.length) / (marginLeft - 12)));
  const height = Math.max(24, 12 * most + 10, 14 * wrapped + 6);
  const bands = placed.filter((one) => one.band);
  const values = [...extent(placed, ({ value }) => value), ...bands.flatMap(({ band }) => band)];
  const reference = isKnown(block.reference) ? [block.reference] : [];
  const names = block.lines.map((name, i) => ({ name, y: i + 0.5 }));
  return Plot.plot({
    ariaLabel: block.title,
    width,
    height: height * block.lines.length + 34,
    marginLeft,
    marginRight: 16,
    marginTop: 4,
    marginBottom: 30,
    x: { domain: spread(d3.extent([...values, ...reference])), nice: true, label: null, ticks: Math.min(6, width / 70), tickSize: 4 },
    y: { domain: [0, block.lines.length], reverse: true, axis: null },
    marks: [
      Plot.gridX({ strokeOpacity: 0.12 }),
      Plot.ruleY(d3.range(block.lines.length + 1), { strokeOpacity: 0.15 }),
      Plot.ruleX(reference, { stroke: INK, strokeDasharray: "3,3" }),
      Plot.ruleY(bands, {
        x1: (one) => one.band[0], x2: (one) => one.band[1], y: "y", stroke: paint, strokeWidth: 9, strokeOpacity: 0.25,
      }),
      Plot.ruleY(bounds, { x1: "low", x2: "high", y: "y", stroke: paint, strokeWidth: 1.8, clip: true }),
      Plot.dot(placed, { x: "value", y: "y", fill: paint, r: 4 }),
      Plot.text(names, {
        y: "y", text: "name", frameAnchor: "left", textAnchor: "end", dx: -8,
        lineWidth: (marginLeft - 10) / 12,
      }),
      Plot.tip(placed, Plot.pointer({ x: "value", y: "y", title: "tip" })),
    ],
  });
}

const isKnown = (value) => value !== null && value !== undefined;

// The ends of values and their intervals. An interval over two seeds may be many times longer than all
// that is compared: it is cut.
function extent(points, valueOf) {
  const [least, most] = d3.extent(points, valueOf);
  const lengths = points.filter(({ low, high }) => isKnown(low) && isKnown(high)).map(({ low, high }) => high - low);
  const room = Math.max(most - least, 2 * (d3.median(lengths) ?? 0));
  return d3.extent(
    points.flatMap((one) => [
      valueOf(one),
      Math.max(least - room, one.low ?? valueOf(one)),
      Math.min(most + room, one.high ?? valueOf(one)),
    ]),
  );
}

// A domain that is no single point.
function spread([low, high]) {
  const room = high > low ? (high - low) * 0.03 : Math.abs(low) || 1;
  return [low - room, high + room];
}

// Series on two axes, as dots, as lines or as both: a radius of 0 draws no dots, a fit no line of points.
function lines(block, width) {
  const points = block.series.flatMap((one, i) =>
    one.points.map((point) => ({ radius: block.small ? 0 : 4, ...one, ...point, series: i })),
  );
  const fits = block.series.filter((one) => one.fit);
  const joined = points.filter((point) => !block.series[point.series].fit);
  const bounds = points.filter((point) => isKnown(point.low) && isKnown(point.high));
  const x = [...new Set(points.map((point) => point.x))].sort(d3.ascending);
  const all = d3.extent([...extent(points, ({ y }) => y), ...(block.y.include ?? [])]);
  const within = block.y.within;
  const ends = within ? [Math.max(within[0], all[0]), Math.min(within[1], all[1])] : all;
  const logarithmic = block.y.log;
  const ticks = logarithmic ? d3.ticks(...ends, 5) : block.small ? 4 : 5;
  const few = x.length <= 8 && x.every(Number.isInteger);
  const labelled = (point) => point.tip ?? `${point.name}\n${d3.format(".4~g")(point.y)} at ${d3.format(",.4~r")(point.x)}`;
  return Plot.plot({
    ariaLabel: block.title,
    width,
    height: block.small ? 190 : 300,
    marginLeft: block.small ? 44 : 52,
    marginRight: block.small ? 12 : 24,
    marginTop: block.y.label ? 30 : 10,
    marginBottom: 44,
    inset: block.small ? 4 : 10,
    x: {
      type: block.x.log ? "log" : "linear", label: block.x.label, labelAnchor: "center",
      labelArrow: "none", tickSize: 4, tickFormat: block.x.log ? ".3~s" : "~r",
      ticks: few ? x : block.small ? 4 : undefined, domain: block.x.domain,
    },
    r: { type: "identity" },
    y: {
      type: logarithmic ? "log" : "linear", label: block.y.label || null, labelArrow: "none", tickSize: 4,
      domain: block.y.domain ?? (logarithmic ? [ends[0] / 1.03, ends[1] * 1.03] : ends[0] < ends[1] ? ends : spread(ends)),
      nice: !logarithmic, ticks, tickFormat: logarithmic || within ? ".2f" : undefined,
    },
    marks: [
      Plot.gridY({ strokeOpacity: 0.12, ticks }),
      Plot.frame({ anchor: "bottom", strokeOpacity: 0.5 }),
      ...(block.diagonal ? [Plot.line([[0.5, 0.5], [1, 1]], { stroke: INK, strokeDasharray: "3,3" })] : []),
      Plot.ruleX(bounds, { x: "x", y1: "low", y2: "high", stroke: paint, strokeWidth: 1.5, clip: true }),
      ...[false, true].map((dashed) =>
        Plot.line(joined.filter((point) => Boolean(point.dashed) === dashed), {
          x: "x", y: "y", z: "series", stroke: paint, strokeWidth: 1.5,
          strokeDasharray: dashed ? "5,4" : undefined,
        }),
      ),
      Plot.dot(points.filter((point) => point.radius), {
        x: "x", y: "y", fill: paint, r: "radius", fillOpacity: points.length > 500 ? 0.5 : 0.9,
      }),
      Plot.dot(points.filter((point) => point.ring), { x: "x", y: "y", stroke: INK, r: 7, strokeWidth: 1.5 }),
      ...fits.map((one) => Plot.line(one.fit, { stroke: block.small ? INK : paint(one), strokeDasharray: "4,4" })),
      Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: labelled })),
    ],
  });
}
