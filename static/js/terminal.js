// A terminal in the run's pod, over the exec socket; nothing of it is fetched before somebody attaches.
import { openScreen } from "./terminal-screen.js";

const FRAME_CHARACTERS = 8 * 1024; // of input: three bytes each at most, and the server takes 32 KiB
const ACK_BYTES = 64 * 1024; // shown since the last word of it; the server keeps at most 512 KiB on the way
const WINDOW_BYTES = 256 * 1024; // of input on its way that the shell has not taken yet
const card = document.querySelector("[data-terminal]");

function address(pod, { rows, cols }) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return `${scheme}//${location.host}/api/devaipod/pods/${encodeURIComponent(pod)}/exec?rows=${rows}&columns=${cols}`;
}

function ended(told) {
  if ("error" in told) return `${told.error} ${told.next_step}`;
  return told.exit === null ? "The shell has ended." : `The shell has ended with status ${told.exit}.`;
}

// Joins a screen to a pod's shell. `onOpen` once it is there, `onEnd(sentence)` once it is over, for whatever reason.
function join(terminal, pod, { onOpen, onEnd }) {
  const socket = new WebSocket(address(pod, terminal));
  socket.binaryType = "arraybuffer";
  const isOpen = () => socket.readyState === WebSocket.OPEN;
  const tell = (message) => isOpen() && socket.send(JSON.stringify(message));
  const tellSize = () => tell({ resize: [terminal.rows, terminal.cols] });
  const encoder = new TextEncoder();
  const typed = [];
  let onTheWay = 0;
  let shown = 0;
  let outcome = "";
  function send() {
    while (typed.length && isOpen() && onTheWay < WINDOW_BYTES) {
      const frame = typed.shift();
      onTheWay += frame.byteLength;
      socket.send(frame);
    }
  }

  terminal.onResize(tellSize);
  terminal.onData((data) => {
    for (let at = 0; at < data.length; at += FRAME_CHARACTERS) {
      typed.push(encoder.encode(data.slice(at, at + FRAME_CHARACTERS)));
    }
    send();
  });
  socket.onopen = () => {
    tellSize();
    tell({ ack: 0 });
    onOpen();
  };
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") {
      const told = JSON.parse(data);
      onTheWay -= told.ack ?? 0;
      if ("ack" in told) send();
      else outcome = ended(told);
      return;
    }
    terminal.write(new Uint8Array(data), () => {
      shown += data.byteLength;
      if (shown < ACK_BYTES) return;
      tell({ ack: shown });
      shown = 0;
    });
  };
  socket.onclose = ({ reason }) => onEnd(outcome || reason || "The connection broke, and the shell with it.");
  return () => {
    outcome = "Detached, and the shell is ended.";
    socket.close(1000);
  };
}

function attachable() {
  const said = card.querySelector("[data-terminal-said]");
  const place = card.querySelector("[data-terminal-screen]");
  const reader = card.querySelector("[data-screen-reader]");
  const leave = card.querySelector("[data-detach]");
  const say = (text) => { said.textContent = text; };
  let screen = null;
  let detach = () => {};

  function onOpen() {
    card.dataset.terminal = "attached";
    say("Attached.");
    screen.terminal.focus();
  }
  function onEnd(text) {
    screen?.close();
    const wasHere = card.contains(document.activeElement);
    card.dataset.terminal = "ended";
    say(text);
    if (wasHere) card.querySelector("[data-attach]")?.focus();
  }
  async function attach(pod) {
    screen?.dispose();
    screen = null;
    card.dataset.terminal = "connecting";
    place.hidden = false;
    say("Connecting…");
    try {
      screen = await openScreen(place, {
        screenReaderMode: reader.checked,
        say,
        onLeave: () => leave.focus(),
      });
      detach = join(screen.terminal, pod, { onOpen, onEnd });
    } catch (error) {
      onEnd(`The terminal could not be loaded (${error.message}). Load the page again.`);
    }
  }

  card.addEventListener("click", ({ target }) => {
    const button = target.closest("[data-attach]");
    if (button) attach(button.dataset.attach);
    if (target === leave) detach();
  });
  reader.addEventListener("change", () => {
    if (screen) screen.terminal.options.screenReaderMode = reader.checked;
  });
}

if (card) attachable();
