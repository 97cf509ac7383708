// Draws the page from its content, the JSON beside this script. Everything in it is data: it becomes
// text nodes and numbers of charts, never markup.
"use strict";

const BLOCKS = {
  facts, table, notes, heading, verdicts, fold, answers, bars: figure, lines: figure, dots: figure,
};

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
  const made = element("table", block.prose ? "prose" : "", element("thead", "", element("tr", "", ...heads)));
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

function heading(block) {
  return element("h3", "part", block.text);
}

function fold(block) {
  return element("details", "run", element("summary", "", block.title), ...grid(block.blocks));
}

function verdicts(block) {
  return element("div", "cards", ...block.cards.map(card));
}

const WORDS = ["gained", "hacked", "unclear"];

function card({ policy, verdict, text, lists }) {
  const known = WORDS.includes(verdict) ? verdict : "unclear";
  const parts = lists.flatMap(({ title, lines }) => [
    element("h4", "", title),
    element("ul", "", ...lines.map((line) => element("li", "", line))),
  ]);
  const head = element("h3", "", `${policy}: `, element("span", "word", verdict));
  return element("div", `card ${known}`, head, element("p", "", text), ...parts);
}

// The blocks; charts that follow each other are in a grid.
function grid(blocks) {
  const made = [];
  for (const block of blocks) {
    const drawn = BLOCKS[block.kind](block);
    const last = made.at(-1);
    if (drawn.tagName !== "FIGURE") made.push(drawn);
    else if (last?.classList.contains("charts")) last.append(drawn);
    else made.push(element("div", block.small ? "charts small" : "charts", drawn));
  }
  return made;
}

function section({ title, note, blocks }, i) {
  const head = element("h2", "", title);
  head.id = `part-${i + 1}`;
  return element("section", "", head, ...(note ? [element("p", "note", note)] : []), ...grid(blocks));
}

function contents(sections) {
  const links = sections.map(({ title }, i) => {
    const link = element("a", "", title);
    link.href = `#part-${i + 1}`;
    return element("li", "", link);
  });
  const made = element("nav", "", element("ol", "", ...links));
  made.setAttribute("aria-label", "Contents");
  return made;
}

// Half of a surrogate pair is no character: it is shown as U+FFFD.
const whole = (_, value) => (typeof value === "string" ? value.replace(/\p{Surrogate}/gu, "\ufffd") : value);
const content = JSON.parse(document.getElementById("content").textContent, whole);
document.getElementById("page").replaceChildren(
  element("h1", "", content.title),
  ...content.about.map((line) => element("p", "about", line)),
  ...content.problems.map((line) => element("p", "problem", line)),
  ...(content.sections.length > 2 ? [contents(content.sections)] : []),
  ...content.sections.map(section),
);
// On paper nothing can be opened. Hundreds of points that are drawn are not printed as a table too.
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details:not(.points)")) each.open = true;
});
