// A container's log, live: at most one paint a frame, 5,000 lines in the page, older ones on scrolling up.
import { connect } from "./socket.js";
import { stickTo } from "./stick.js";

const MAX_LINES = 5_000;
// Terminal sequences; the server's `log_text` takes out the same.
const ANSI = /\x1b(?:\[[0-?]*[ -\/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])|\r/g;
const HIDDEN = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const log = document.querySelector("[data-log]");

function named(character) {
  const point = character.codePointAt(0);
  if (point < 32) return String.fromCodePoint(0x2400 + point);
  return `U+${point.toString(16).toUpperCase().padStart(4, "0")}`;
}

// Text alone is ever set: a log line cannot become markup.
function lineNode(line) {
  const row = document.createElement("div");
  row.className = "log-line";
  row.dataset.n = line.n;
  if (line.stream === "stderr") row.dataset.stream = "stderr";
  const time = document.createElement("time");
  time.dateTime = line.at;
  time.textContent = line.at.slice(11, 23);
  const text = document.createElement("bdi");
  const plain = line.text.replace(ANSI, "");
  let last = 0;
  for (const match of plain.matchAll(HIDDEN)) {
    const mark = document.createElement("span");
    mark.className = "diff-special";
    mark.textContent = named(match[0]);
    text.append(plain.slice(last, match.index), mark);
    last = match.index + match[0].length;
  }
  text.append(plain.slice(last));
  row.append(time, text);
  return row;
}

function nodes(lines) {
  const part = document.createDocumentFragment();
  for (const line of lines) {
    if (line.gap) {
      const gap = document.createElement("div");
      gap.className = "log-gap";
      gap.textContent = "… lines before this one were discarded";
      part.append(gap);
    }
    part.append(lineNode(line));
  }
  return part;
}

function follow() {
  const { run, pod, container } = log.dataset;
  const card = log.closest(".log-card");
  const note = card.querySelector("[data-reconnecting]");
  const stick = stickTo(log, card.querySelector("[data-jump]"));
  let last = Number(log.dataset.last);
  let first = Number(log.dataset.first);
  let waiting = [];
  let isPlanned = false;
  let isAsking = false;

  function paint() {
    isPlanned = false;
    const lines = waiting.slice(-MAX_LINES);
    waiting = [];
    log.querySelector("[data-log-empty]")?.remove();
    if (!first && lines.length) first = lines[0].n;
    log.append(nodes(lines));
    if (stick.isAtEnd()) trim();
    stick.grown(lines.length);
  }
  function trim() {
    while (log.childElementCount > MAX_LINES) log.firstElementChild.remove();
    first = Number(log.querySelector("[data-n]")?.dataset.n ?? first);
  }
  async function older() {
    if (isAsking || first <= 1 || log.scrollTop > 200) return;
    isAsking = true;
    const query = new URLSearchParams({ pod, container, before: first });
    const answer = await fetch(`${location.pathname}?${query}`).catch(() => null);
    const lines = answer?.ok ? await answer.json() : [];
    if (lines.length) {
      const height = log.scrollHeight;
      first = lines[0].n;
      log.prepend(nodes(lines));
      log.scrollTop += log.scrollHeight - height;
    }
    isAsking = false;
  }

  log.addEventListener("scroll", older, { passive: true });
  log.addEventListener("keydown", (event) => event.key === "End" && stick.toEnd());
  stick.toEnd();
  if (!("live" in log.dataset)) return;
  connect(() => `/ws/runs/${run}/logs/${pod}/${container}/?after=${last}`, {
    onMessage(lines) {
      const fresh = lines.filter((line) => line.n > last);
      if (!fresh.length) return;
      last = fresh[fresh.length - 1].n;
      waiting.push(...fresh);
      if (isPlanned) return;
      isPlanned = true;
      if (document.hidden) setTimeout(paint, 250);
      else requestAnimationFrame(paint);
    },
    onState(state) {
      note.hidden = state === "open";
      if (state === "refused") note.textContent = "You may not see this log any more. Load the page again. ";
    },
  });
}

if (log) follow();
