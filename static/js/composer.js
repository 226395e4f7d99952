// Text boxes: Ctrl+Enter sends (data-submit-keys), the box grows with its text (data-grow).
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  const box = event.target.closest?.("[data-submit-keys]");
  if (!box) return;
  event.preventDefault();
  box.form.requestSubmit();
});

document.addEventListener("input", (event) => {
  const box = event.target.closest?.("[data-grow]");
  if (box) box.rows = Math.min(12, Math.max(1, box.value.split("\n").length));
});

// The composer comes back empty after sending: the focus stays in it.
document.addEventListener("htmx:afterSwap", (event) => {
  const sent = event.detail.requestConfig?.elt?.id === "composer";
  if (sent) document.getElementById("prompt-text")?.focus({ preventScroll: true });
});
