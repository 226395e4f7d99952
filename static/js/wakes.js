// Lists keep up by themselves: each wake of the socket becomes the event `wakes`, on which htmx fetches their parts.
import { connect } from "./socket.js";

//: A wake may be lost; lists are fetched on this beat all the same.
const BEAT_MS = 30_000;
const address = document.body.dataset.wakes;

if (address) {
  let missed = false;
  const tell = () => {
    missed = document.hidden;
    if (!document.hidden) document.body.dispatchEvent(new CustomEvent("wakes"));
  };
  connect(() => address, {
    onMessage: tell,
    // What happened between the page and its socket, or while there was none, is fetched at once.
    onState: (state) => state === "open" && tell(),
  });
  setInterval(tell, BEAT_MS);
  document.addEventListener("visibilitychange", () => missed && tell());
}
