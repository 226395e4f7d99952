// Keys of every page: / search, ? help, c new run, g and a letter; a and r answer the oldest open question of a run.
const TYPING = "input, textarea, select, [contenteditable]";
const GO = { n: "/", r: "/runs/", v: "/reviews/", p: "/projects/", s: "/services/" };
let wentAt = 0;

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.(TYPING) || document.querySelector("dialog[open]")) return;
  if (Date.now() - wentAt < 1200 && GO[event.key]) {
    location.assign(GO[event.key]);
    return;
  }
  wentAt = event.key === "g" ? Date.now() : 0;
  const box = document.querySelector("[data-search-box]");
  if (event.key === "/" && box) {
    event.preventDefault();
    if (box.offsetParent) box.focus();
    else location.assign("/search/");
  } else if (event.key === "?") {
    location.assign("/help/");
  } else if (event.key === "c" && document.body.dataset.may.includes("launch")) {
    location.assign("/runs/new/");
  } else if (event.key === "a" || event.key === "r") {
    answer(event);
  }
});

function answer(event) {
  if (event.repeat) return;
  const button = document.querySelector(`[data-question] [data-key="${event.key}"]`);
  if (!button?.offsetParent || button.disabled) return;
  event.preventDefault();
  button.click();
}
