// Sticks to the end while the reader is at the end; else counts what is new and offers to jump there.
//
// The end is the scroller's own, or with `edge` the lower edge of that part of the page.
const NEAR = 80;

export function stickTo(scroller, jump, edge = null) {
  let fresh = 0;
  const below = () => (edge
    ? edge.getBoundingClientRect().bottom - scroller.clientHeight
    : scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight);
  let isAtEnd = below() < NEAR;
  const target = scroller === document.scrollingElement ? document : scroller;

  function show() {
    jump.hidden = isAtEnd || fresh === 0;
    jump.textContent = `Jump to latest (${fresh} new)`;
  }
  function toEnd() {
    scroller.scrollTop += Math.max(0, below() + (edge ? 12 : 0));
    isAtEnd = true;
    fresh = 0;
    show();
  }
  target.addEventListener("scroll", () => {
    isAtEnd = below() < NEAR;
    if (isAtEnd) fresh = 0;
    show();
  }, { passive: true });
  jump.addEventListener("click", toEnd);
  return {
    toEnd,
    isAtEnd: () => isAtEnd,
    // Called after new things are in the page.
    grown(count) {
      if (isAtEnd) return toEnd();
      fresh += count;
      show();
    },
  };
}
