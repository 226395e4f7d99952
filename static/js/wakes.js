// Lists keep up by themselves: each wake of the socket becomes the event `wakes`, on which htmx fetches their parts.
import { connect } from "./socket.js";

//: A wake may be lost; lists are fetched on this beat all the same.
const BEAT_MS = 30_000;
//: At most one fetch in this time; the last wake of many is never dropped (htmx's own `throttle` would drop it).
const PACE_MS = 1_100;
const address = document.body.dataset.wakes;

if (address) {
  let missed = false;
  let toldAt = 0;
  let timer = 0;
  const tell = () => {
    missed = document.hidden;
    if (document.hidden || timer) return;
    timer = setTimeout(() => {
      timer = 0;
      toldAt = Date.now();
      document.body.dispatchEvent(new CustomEvent("wakes"));
    }, Math.max(0, toldAt + PACE_MS - Date.now()));
  };
  connect(() => address, {
    onMessage: tell,
    // What happened between the page and its socket, or while there was none, is fetched at once.
    onState: (state) => state === "open" && tell(),
  });
  setInterval(tell, BEAT_MS);
  document.addEventListener("visibilitychange", () => missed && tell());
}
