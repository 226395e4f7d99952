// A websocket that comes back by itself: back-off with jitter, and the caller's own cursor in the address.
const FIRST_MS = 500;
const MOST_MS = 15_000;
const NOTICE_MS = 2_000;
//: Closed on purpose: session or role ended, nothing there, or a run that is gone.
const FINAL = new Set([4403, 4404]);

export function connect(address, { onMessage, onState = () => {} }) {
  let delay = FIRST_MS;
  let notice = 0;
  let socket = null;
  let timer = 0;

  function open() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(`${scheme}//${location.host}${address()}`);
    socket.onopen = () => {
      delay = FIRST_MS;
      clearTimeout(notice);
      notice = 0;
      onState("open");
    };
    socket.onmessage = (event) => onMessage(JSON.parse(event.data));
    socket.onclose = (event) => {
      if (FINAL.has(event.code)) return onState("refused");
      if (!notice) notice = setTimeout(() => onState("reconnecting"), NOTICE_MS);
      timer = setTimeout(open, delay * (0.75 + Math.random() / 2));
      delay = Math.min(delay * 2, MOST_MS);
    };
  }

  open();
  addEventListener("online", () => {
    if (socket.readyState !== WebSocket.CLOSED) return;
    clearTimeout(timer);
    delay = FIRST_MS;
    open();
  });
  return { restart: () => socket.close() };
}
