// A container's log: a window of at most 5,000 lines (fewer when they are heavy) that moves by scrolling, and follows while it is live.
import { nodes, showWhole, weight } from "./log-lines.js";
import { connect } from "./socket.js";
import { stickTo } from "./stick.js";

const MAX_LINES = 5_000;
const MAX_WEIGHT = 1_500_000;
const NEAR = 300;
const log = document.querySelector("[data-log]");

function logWindow() {
  const { run, pod, container } = log.dataset;
  const card = log.closest(".log-card");
  const note = card.querySelector("[data-reconnecting]");
  const jump = card.querySelector("[data-jump]");
  const stick = stickTo(log, jump);
  const weights = new WeakMap();
  let newest = Number(log.dataset.last); // known to be stored
  let first = Number(log.dataset.first); // in the page
  let last = newest;
  let total = 0;
  let waiting = [];
  let isPlanned = false;
  let isAsking = false;
  for (const row of log.children) count(row);

  function count(row) {
    weights.set(row, weight(row));
    total += weights.get(row);
  }
  function put(lines, before = null) {
    log.querySelector("[data-log-empty]")?.remove();
    const part = nodes(lines);
    const rows = [...part.children];
    log.insertBefore(part, before);
    rows.forEach(count);
  }
  // Take rows away at one end until the window fits its bounds.
  function trim(end) {
    while (log.childElementCount > 1 && (log.childElementCount > MAX_LINES || total > MAX_WEIGHT)) {
      const row = log[end];
      total -= weights.get(row) ?? 0;
      row.remove();
    }
    const rows = log.querySelectorAll("[data-n]");
    first = Number(rows[0]?.dataset.n ?? 0);
    last = Number(rows[rows.length - 1]?.dataset.n ?? 0);
  }
  function replaceAll(lines) {
    log.replaceChildren();
    total = 0;
    put(lines);
    trim("firstElementChild");
  }
  async function fetched(question) {
    const query = new URLSearchParams({ pod, container, ...question });
    const answer = await fetch(`${location.pathname}?${query}`).catch(() => null);
    return answer?.ok ? answer.json() : [];
  }
  async function alone(work) {
    if (isAsking) return;
    isAsking = true;
    await work().finally(() => { isAsking = false; });
  }

  const older = () => alone(async () => {
    const lines = await fetched({ before: first });
    if (!lines.length) return;
    const height = log.scrollHeight;
    put(lines, log.firstElementChild);
    log.scrollTop += log.scrollHeight - height;
    trim("lastElementChild");
  });
  const newer = () => alone(async () => {
    const lines = await fetched({ after: last });
    if (!lines.length) return;
    put(lines);
    const height = log.scrollHeight;
    trim("firstElementChild");
    log.scrollTop -= height - log.scrollHeight;
    newest = Math.max(newest, last);
  });
  const toEnd = () => alone(async () => {
    if (last < newest) replaceAll(await fetched({ before: newest + 1 }));
    stick.toEnd();
  });
  const toStart = () => alone(async () => {
    if (first > 1) replaceAll(await fetched({ after: 0 }));
    log.scrollTop = 0;
  });

  function paint() {
    isPlanned = false;
    const lines = waiting;
    waiting = [];
    if (last && lines[0].n > last + 1 && !lines[0].gap) {
      // More came than the window holds: it begins anew with the latest.
      replaceAll(lines);
    } else {
      put(lines);
      if (stick.isAtEnd()) trim("firstElementChild");
      // The reader is further up: what does not fit stays on the server until it is scrolled to.
      else trim("lastElementChild");
    }
    stick.grown(lines.length);
  }
  function follow() {
    connect(() => `/ws/runs/${run}/logs/${pod}/${container}/?after=${newest}`, {
      onMessage(lines) {
        const fresh = lines.filter((line) => line.n > newest);
        if (!fresh.length) return;
        const follows = waiting.length > 0 || last === newest;
        newest = fresh[fresh.length - 1].n;
        if (!follows) return stick.grown(fresh.length);
        waiting.push(...fresh);
        if (waiting.length > MAX_LINES) waiting = waiting.slice(-MAX_LINES);
        if (isPlanned) return;
        isPlanned = true;
        // No frame is painted in a hidden page: its lines are worked off all the same.
        if (document.hidden) setTimeout(paint, 250);
        else requestAnimationFrame(paint);
      },
      onState(state) {
        note.hidden = state === "open";
        if (state === "refused") note.textContent = "You may not see this log any more. Load the page again. ";
      },
    });
  }

  log.addEventListener("scroll", () => {
    if (log.scrollTop < NEAR && first > 1) older();
    else if (last < newest && log.scrollHeight - log.scrollTop - log.clientHeight < NEAR) newer();
  }, { passive: true });
  log.addEventListener("keydown", (event) => {
    if (event.key === "End") toEnd();
    if (event.key === "Home") toStart();
  });
  jump.addEventListener("click", toEnd);
  log.addEventListener("click", async ({ target }) => {
    const row = target.closest("[data-whole]")?.closest("[data-n]");
    if (!row) return;
    const [line] = await fetched({ line: row.dataset.n });
    if (line) showWhole(row, line);
  });
  stick.toEnd();
  if ("live" in log.dataset) follow();
}

if (log) logWindow();
