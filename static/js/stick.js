// Sticks to the end while the reader is at the end; else counts what is new and offers to jump there.
const NEAR = 80;

export function stickTo(scroller, jump) {
  let fresh = 0;
  let isAtEnd = true;
  const end = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
  const target = scroller === document.scrollingElement ? document : scroller;

  function show() {
    jump.hidden = isAtEnd || fresh === 0;
    jump.textContent = `Jump to latest (${fresh} new)`;
  }
  function toEnd() {
    scroller.scrollTop = scroller.scrollHeight;
    isAtEnd = true;
    fresh = 0;
    show();
  }
  target.addEventListener("scroll", () => {
    isAtEnd = end() < NEAR;
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
