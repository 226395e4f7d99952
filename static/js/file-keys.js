// j and k open the next and the previous file of a change, wherever the list stands on the page.
//
// Attached by `data-file-keys` around links with `data-file-link`; the open one has `aria-current`.

const TYPING = "input, textarea, select, [contenteditable]";

function step(root, by) {
  const links = [...root.querySelectorAll("[data-file-link]")];
  const at = links.findIndex((link) => link.hasAttribute("aria-current"));
  const next = links[at + by];
  if (!next) return;
  // The list is replaced with the file: the focus goes to the same place in the new one.
  document.body.addEventListener(
    "htmx:afterSettle",
    () => {
      const current = document.querySelector("[data-file-link][aria-current]");
      current?.focus({ preventScroll: true });
      current?.scrollIntoView({ block: "nearest" });
    },
    { once: true },
  );
  next.click();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.(TYPING)) return;
  if (document.querySelector("dialog[open]")) return;
  const root = document.querySelector("[data-file-keys]");
  if (!root || (event.key !== "j" && event.key !== "k")) return;
  event.preventDefault();
  step(root, event.key === "j" ? 1 : -1);
});
