// A line of a log as an element. Text alone is ever set, so a line cannot become markup; and nothing in a line makes many elements.

// Terminal sequences; the server's `log_text` takes out the same.
const ANSI = /\x1b(?:\[[0-?]*[ -\/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])|\r/g;
const HIDDEN = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
// Hidden characters that get a mark of their own; a binary line has thousands, and the rest of them stand as plain text.
const MAX_MARKS = 20;
const MARK_WEIGHT = 60;
const LINE_WEIGHT = 100;

function named(character) {
  const point = character.codePointAt(0);
  if (point < 32) return String.fromCodePoint(0x2400 + point);
  return `U+${point.toString(16).toUpperCase().padStart(4, "0")}`;
}

function fill(element, text) {
  const plain = text.replace(ANSI, "");
  let last = 0;
  let marks = 0;
  for (const match of plain.matchAll(HIDDEN)) {
    if (marks === MAX_MARKS) break;
    const mark = document.createElement("span");
    mark.className = "diff-special";
    mark.textContent = named(match[0]);
    element.append(plain.slice(last, match.index), mark);
    last = match.index + match[0].length;
    marks += 1;
  }
  element.append(plain.slice(last).replace(HIDDEN, named));
  return marks;
}

function lineNode(line) {
  const row = document.createElement("div");
  row.className = "log-line";
  row.dataset.n = line.n;
  if (line.stream === "stderr") row.dataset.stream = "stderr";
  if (line.partial) row.dataset.partial = "";
  const time = document.createElement("time");
  time.dateTime = line.at;
  time.textContent = line.at.slice(11, 23);
  const text = document.createElement("bdi");
  fill(text, line.text);
  row.append(time, text);
  if (line.length) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button";
    button.dataset.size = "small";
    button.dataset.whole = line.n;
    button.textContent = `Show all ${line.length} characters`;
    row.append(button);
  }
  return row;
}

// The elements of lines, with a mark where lines are missing.
export function nodes(lines) {
  const part = document.createDocumentFragment();
  for (const line of lines) {
    const row = lineNode(line);
    if (line.gap) {
      const gap = document.createElement("div");
      gap.className = "log-gap";
      gap.textContent = "… lines before this one were discarded";
      part.append(gap);
    }
    part.append(row);
  }
  return part;
}

// What an element of a log costs the page, about: characters, and more for each element.
export function weight(row) {
  return LINE_WEIGHT + row.textContent.length + MARK_WEIGHT * (row.querySelectorAll(".diff-special").length);
}

// Put the whole text of a line into its row.
export function showWhole(row, line) {
  row.querySelector("[data-whole]")?.remove();
  const text = row.querySelector("bdi");
  text.replaceChildren();
  fill(text, line.text);
}
