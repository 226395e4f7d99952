// Lists keep up by themselves: each wake of the socket becomes the event `wakes`, on which htmx fetches their parts.
import { connect } from "./socket.js";

const address = document.body.dataset.wakes;
if (address) {
  let missed = false;
  let wasOpen = false;
  const tell = () => {
    if (document.hidden) missed = true;
    else document.body.dispatchEvent(new CustomEvent("wakes"));
  };
  connect(() => address, {
    onMessage: tell,
    onState(state) {
      // What happened while there was no socket is fetched once it is back.
      if (state === "open" && wasOpen) tell();
      if (state === "open") wasOpen = true;
    },
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && missed) {
      missed = false;
      tell();
    }
  });
}
