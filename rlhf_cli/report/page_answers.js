// The browser of answers: search, filters, orders and pages of prompts with the answers of all policies.
"use strict";

const PER_PAGE = 10;
const LONG = 700; // characters or
const TALL = 14; // lines from which a text is folded
const PAUSE = 200; // milliseconds without a key until the search begins

const score = (one) => one?.s ?? null;

// name, and of a prompt's answers (the policy's, the baseline's) what decides its place: smaller is first.
const ORDERS = [
  ["in the order of the data", null],
  ["worst score first", (one) => score(one)],
  ["best score first", (one) => negative(score(one))],
  ["largest change of score from SFT", (one, before) => negative(absolute(change(one, before)))],
  ["largest gain of score over SFT", (one, before) => negative(change(one, before))],
  ["largest loss of score to SFT", (one, before) => change(one, before)],
  ["longest first", (one) => negative(one?.t ?? one?.r.length ?? null)],
];

const negative = (value) => (value === null ? null : -value);
const absolute = (value) => (value === null ? null : Math.abs(value));
const change = (one, before) =>
  score(one) === null || score(before) === null ? null : score(one) - score(before);

// [name, whether the policy's answer passes], given all names of judges.
function filtersOf(judges) {
  return [
    ["all answers", () => true],
    ["ended", (one) => one.e === true],
    ["did not end", (one) => one.e === false],
    ["scored higher than SFT", (one, before) => change(one, before) > 0],
    ["scored lower than SFT", (one, before) => change(one, before) < 0],
    ...judges.flatMap((name) => [
      [`preferred to SFT by ${name}`, (one, before) => preference(one, before, name) > 0],
      [`rejected for SFT by ${name}`, (one, before) => preference(one, before, name) < 0],
    ]),
  ];
}

// A judge's figure against the baseline's; where the baseline has none it is a share of preference.
function preference(one, before, name) {
  const value = one.j?.[name];
  return isKnown(value) ? value - (before?.j?.[name] ?? 0.5) : 0;
}

function answers(block) {
  const { columns, prompts } = block;
  const judges = [...new Set(prompts.flatMap(({ answers }) => answers.flatMap((one) => Object.keys(one?.j ?? {}))))];
  const sets = [...new Set(prompts.map((one) => one.set ?? ""))];
  const filters = filtersOf(judges);
  const last = columns.findLastIndex((_, i) => columns[i].baseline !== i);
  const search = control("input", "Search in prompts and answers");
  search.type = "search";
  const policy = choice("Policy", columns.map(({ name }) => name), Math.max(0, last));
  const filter = choice("Its answers", filters.map(([name]) => name));
  const order = choice("Order", ORDERS.map(([name]) => name));
  const kind = choice("Prompts", ["all prompts", ...sets.map((name) => name || "held-out prompts")]);
  const found = element("p", "found");
  found.setAttribute("role", "status");
  const list = element("div", "prompts");
  const before = element("button", "", "Previous");
  const after = element("button", "", "Next");
  let page = 0;
  let places = [];

  function choose() {
    const words = search.value.toLowerCase();
    const i = policy.selectedIndex;
    const [, passes] = filters[filter.selectedIndex];
    const base = (one) => one.answers[columns[i].baseline];
    const set = kind.selectedIndex ? sets[kind.selectedIndex - 1] : null;
    const some = prompts.filter(
      (one) =>
        (set === null || (one.set ?? "") === set) &&
        (!filter.selectedIndex || (one.answers[i] && passes(one.answers[i], base(one)))) &&
        (!words || textOf(one).includes(words)),
    );
    const [, key] = ORDERS[order.selectedIndex];
    places = key ? ordered(some, (one) => key(one.answers[i], base(one))) : some;
    page = 0;
    show();
  }

  function show() {
    const first = page * PER_PAGE;
    const some = places.slice(first, first + PER_PAGE);
    found.textContent = places.length
      ? `${first + 1} to ${first + some.length} of ${places.length.toLocaleString("en")} prompts`
      : "no prompt is like this";
    before.disabled = !page;
    after.disabled = first + PER_PAGE >= places.length;
    list.replaceChildren(...some.map((one) => promptOf(one, columns)));
  }

  function turn(step) {
    page += step;
    show();
    found.scrollIntoView({ block: "nearest" });
  }

  let waiting;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(choose, PAUSE);
  });
  for (const each of [policy, filter, order, kind]) each.addEventListener("change", choose);
  before.addEventListener("click", () => turn(-1));
  after.addEventListener("click", () => turn(1));
  choose();
  const controls = [search, policy, filter, order, ...(sets.length > 1 ? [kind] : [])];
  return element(
    "div",
    "browser",
    element("div", "controls", ...controls.map((each) => each.parentNode)),
    found,
    list,
    element("div", "pages", before, after),
  );
}

function control(tag, name) {
  const made = element(tag, "");
  element("label", "", element("span", "", name), made);
  return made;
}

function choice(name, options, chosen = 0) {
  const made = control("select", name);
  made.append(...options.map((text) => element("option", "", text)));
  made.selectedIndex = chosen;
  return made;
}

// Prompts by their key, those without one last.
function ordered(prompts, key) {
  const keyed = prompts.map((one) => [key(one), one]);
  const place = (value) => (value === null ? Infinity : value);
  return keyed.sort((a, b) => d3.ascending(place(a[0]), place(b[0]))).map(([, one]) => one);
}

const searched = new WeakMap();

function textOf(one) {
  if (!searched.has(one)) {
    const texts = [one.prompt, one.reference ?? "", ...one.answers.map((each) => each?.r ?? "")];
    searched.set(one, texts.join("\n").toLowerCase());
  }
  return searched.get(one);
}

function promptOf(one, columns) {
  const shown = one.answers.flatMap((each, i) => (each ? [answerOf(each, columns[i], one.answers)] : []));
  const reference = one.reference
    ? [element("div", "answer", element("h5", "", "reference"), text(one.reference))]
    : [];
  return element(
    "article",
    "",
    element("div", "asked", ...(one.set ? [element("span", "below", one.set)] : []), text(one.prompt)),
    element("div", "row", ...shown, ...reference),
  );
}

function answerOf(one, column, all) {
  const moved = change(one, all[column.baseline]);
  const isBaseline = all[column.baseline] === one;
  const words = [
    ...(score(one) === null ? [] : [`score ${d3.format(".2f")(one.s)}${moved === null || isBaseline ? "" : ` (${d3.format("+.2f")(moved)})`}`]),
    ...Object.entries(one.m ?? {}).map(([name, value]) => `${name} ${d3.format(".3~g")(value)}`),
    ...Object.entries(one.j ?? {}).map(([name, value]) => `judge ${name} ${d3.format(".3~g")(value)}`),
    ...(isKnown(one.t) ? [`${one.t} tokens`] : []),
  ];
  const ended = one.e === false ? [element("span", "cut", "did not end")] : [];
  return element(
    "div",
    "answer",
    element("h5", column.colour, column.name),
    element("p", "below", ...words.map((word) => element("span", "", word)), ...ended),
    text(one.r),
  );
}

// What a person or a model wrote; long texts are folded, and are there as a whole all the same.
function text(value) {
  const made = element("div", "text", value || "(nothing)");
  made.dir = "auto";
  if (value.length <= LONG && value.split("\n").length <= TALL) return made;
  made.classList.add("folded");
  const more = element("button", "", `Show all ${value.length.toLocaleString("en")} characters`);
  more.addEventListener("click", () => {
    made.classList.remove("folded");
    more.remove();
  });
  return element("div", "", made, more);
}
