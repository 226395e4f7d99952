// A run's page, live: items are put in place by their id, at most once a frame; header, buttons and aside as a whole.
import { connect } from "./socket.js";
import { stickTo } from "./stick.js";
import { refresh } from "./times.js";

const MAX_ITEMS = 2_000;
const PLACES = { header: "run-header", actions: "run-actions", aside: "run-aside" };
const frame = document.querySelector("[data-run][data-seq]");

function node(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.firstElementChild;
}

// What the reader has opened stays open.
function keepOpen(old, fresh) {
  const before = old.querySelectorAll("details");
  fresh.querySelectorAll("details").forEach((details, index) => {
    if (before[index]?.open) details.open = true;
  });
}

function place(list, operation) {
  const fresh = node(operation.html);
  if (!fresh) return 0;
  const old = document.getElementById(operation.id);
  if (old) {
    if (old.contains(document.activeElement) && old.outerHTML === fresh.outerHTML) return 0;
    keepOpen(old, fresh);
    old.replaceWith(fresh);
  } else {
    let before = list.lastElementChild;
    while (before && Number(before.dataset.at) > operation.at) before = before.previousElementSibling;
    if (before) before.after(fresh);
    else list.prepend(fresh);
  }
  window.htmx.process(fresh);
  refresh(fresh);
  return old ? 0 : 1;
}

function swap(name, html) {
  if (name === "state") {
    const region = document.getElementById("run-state");
    if (region.dataset.state !== html) region.textContent = `The run is ${html.replace("_", " ")}.`;
    region.dataset.state = html;
    return;
  }
  const element = document.getElementById(PLACES[name]);
  if (!element || element.contains(document.activeElement)) return;
  element.innerHTML = html;
  window.htmx.process(element);
  refresh(element);
}

function follow() {
  const list = document.getElementById("transcript");
  const note = frame.querySelector("[data-reconnecting]");
  const stick = stickTo(document.scrollingElement, frame.querySelector("[data-jump]"), frame);
  let seq = Number(frame.dataset.seq);
  let waiting = [];
  let isPlanned = false;

  function paint() {
    isPlanned = false;
    const operations = waiting;
    waiting = [];
    let grown = 0;
    for (const operation of operations) {
      if (operation.op === "reload") return location.reload();
      if (operation.op === "item") grown += place(list, operation);
      else swap(operation.op, operation.html);
    }
    if (stick.isAtEnd()) {
      const items = list.querySelectorAll(":scope > .item");
      for (let index = 0; index < items.length - MAX_ITEMS; index += 1) items[index].remove();
    }
    stick.grown(grown);
  }

  connect(() => `/ws/runs/${frame.dataset.run}/?after=${seq}`, {
    onMessage(message) {
      seq = Math.max(seq, message.seq);
      waiting.push(...message.items);
      if (isPlanned) return;
      isPlanned = true;
      // No frame is painted in a hidden page: its queue is worked off all the same.
      if (document.hidden) setTimeout(paint, 250);
      else requestAnimationFrame(paint);
    },
    onState(state) {
      note.hidden = state === "open";
      if (state === "refused") note.textContent = "You are signed out, or may not see this run any more. Load the page again.";
    },
  });
  if (!location.hash && list.querySelector("[data-live], [data-question]")) stick.toEnd();
}

if (frame) follow();
