// Parts that renew themselves (data-keep-focus) wait while somebody is on a control in them, and keep the place of the page;
// older items that are put in above (data-keep-place) do not move what is read.
document.addEventListener("htmx:beforeSwap", (event) => {
  const part = event.detail.target;
  if (!part.matches("[data-keep-focus]")) return;
  // What somebody fills in there is not taken away; the next wake or beat renews the rest.
  if (part.querySelector("details.menu[open]")) {
    event.detail.shouldSwap = false;
    return;
  }
  const active = document.activeElement;
  const link = part.contains(active) ? active.closest("a[href], button, summary") : null;
  if (!link) return;
  const mark = link.getAttribute("href") ?? `${link.value}|${link.textContent}`;
  document.body.addEventListener("htmx:afterSwap", () => {
    const again = [...part.querySelectorAll("a[href], button, summary")].find(
      (other) => (other.getAttribute("href") ?? `${other.value}|${other.textContent}`) === mark,
    );
    again?.focus({ preventScroll: true });
  }, { once: true });
});

document.addEventListener("htmx:beforeSwap", (event) => {
  if (!event.detail.requestConfig?.elt?.matches("[data-keep-place]")) return;
  const scroller = document.scrollingElement;
  const below = scroller.scrollHeight - scroller.scrollTop;
  document.body.addEventListener("htmx:afterSwap", () => {
    scroller.scrollTop = scroller.scrollHeight - below;
  }, { once: true });
});
