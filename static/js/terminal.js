// A terminal in the run's pod: xterm.js over the exec socket, fetched only when somebody attaches.
import { styledDocument } from "./terminal-styles.js";

const FRAME_CHARACTERS = 8 * 1024; // of input; four bytes each at most, and the server takes 32 KiB
const ACK_BYTES = 64 * 1024;
const RESIZE_MS = 120;
const SCROLLBACK_LINES = 5_000;
const card = document.querySelector("[data-terminal]");

function theme() {
  const colour = (name) => getComputedStyle(card).getPropertyValue(name).trim();
  return {
    background: colour("--surface"),
    foreground: colour("--text"),
    cursor: colour("--accent"),
    cursorAccent: colour("--surface"),
    selectionBackground: colour("--accent"),
    selectionForeground: colour("--accent-on"),
  };
}

// What the pod writes is untrusted: no link is opened, the clipboard (OSC 52) is out of reach, and xterm.js reports
// neither title nor window (its `windowOptions` are all off).
function untrusting(terminal, say) {
  terminal.parser.registerOscHandler(52, () => true);
  terminal.options.linkHandler = {
    activate: (event, address) => say(`This link is not opened: ${address.slice(0, 300)}`),
  };
}

async function begin(pod, { say, onEnd }) {
  const [{ Terminal }, { FitAddon }] = await Promise.all([
    import("../vendor/xterm/xterm.mjs"),
    import("../vendor/xterm/addon-fit.mjs"),
  ]);
  const screen = card.querySelector("[data-terminal-screen]");
  const reader = card.querySelector("[data-screen-reader]");
  screen.replaceChildren();
  const terminal = new Terminal({
    documentOverride: styledDocument,
    fontFamily: getComputedStyle(screen).fontFamily,
    fontSize: 13,
    minimumContrastRatio: 4.5,
    screenReaderMode: reader.checked,
    scrollback: SCROLLBACK_LINES,
    theme: theme(),
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  untrusting(terminal, say);
  terminal.open(screen);
  fit.fit();

  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}/api/devaipod/pods/${encodeURIComponent(pod)}/exec`);
  socket.binaryType = "arraybuffer";
  const tell = (message) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message));
  const bytes = new TextEncoder();
  const type = (data) => {
    for (let at = 0; at < data.length && socket.readyState === WebSocket.OPEN; at += FRAME_CHARACTERS) {
      socket.send(bytes.encode(data.slice(at, at + FRAME_CHARACTERS)));
    }
  };
  const size = () => tell({ resize: [terminal.rows, terminal.cols] });
  let shown = 0;
  let outcome = "";

  terminal.onData(type);
  terminal.onResize(size);
  terminal.attachCustomKeyEventHandler((event) => {
    const leaves = event.ctrlKey && event.shiftKey && (event.key === "Escape" || event.key === "ArrowUp");
    if (leaves && event.type === "keydown") card.querySelector("[data-detach]").focus();
    // With a selection Ctrl-C copies, as the browser does it; without one it is the interrupt.
    const copies = event.ctrlKey && !event.shiftKey && event.key === "c" && terminal.hasSelection();
    return !leaves && !copies;
  });
  socket.onopen = () => {
    size();
    tell({ ack: 0 });
    terminal.focus();
    say("Attached.");
    card.dataset.terminal = "attached";
  };
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") {
      const told = JSON.parse(data);
      if ("exit" in told) outcome = `The shell has ended${told.exit === null ? "" : ` with status ${told.exit}`}.`;
      if ("error" in told) outcome = `${told.error} ${told.next_step}`;
      return;
    }
    terminal.write(new Uint8Array(data), () => {
      shown += data.byteLength;
      if (shown < ACK_BYTES) return;
      tell({ ack: shown });
      shown = 0;
    });
  };
  socket.onclose = ({ reason }) => {
    terminal.options.disableStdin = true;
    terminal.options.cursorBlink = false;
    watch.disconnect();
    onEnd(outcome || reason || "The connection broke, and the shell with it.");
  };

  let timer = 0;
  const watch = new ResizeObserver(() => {
    clearTimeout(timer);
    timer = setTimeout(() => fit.fit(), RESIZE_MS);
  });
  watch.observe(screen);
  return { terminal, detach: () => socket.close(1000) };
}

function attachable() {
  const said = card.querySelector("[data-terminal-said]");
  const say = (text) => { said.textContent = text; };
  let session = null;

  async function attach(pod) {
    session?.terminal.dispose();
    session = null;
    card.dataset.terminal = "connecting";
    card.querySelector("[data-terminal-screen]").hidden = false;
    say("Connecting…");
    const onEnd = (text) => {
      card.dataset.terminal = "ended";
      say(text);
      if (card.contains(document.activeElement)) card.querySelector("[data-attach]")?.focus();
    };
    try {
      session = await begin(pod, { say, onEnd });
    } catch (error) {
      onEnd(`The terminal could not be loaded (${error.message}). Load the page again.`);
    }
  }

  card.addEventListener("click", ({ target }) => {
    const button = target.closest("[data-attach]");
    if (button) attach(button.dataset.attach);
    if (target.closest("[data-detach]")) session?.detach();
  });
  card.querySelector("[data-screen-reader]").addEventListener("change", ({ target }) => {
    if (session) session.terminal.options.screenReaderMode = target.checked;
  });
  const restyle = () => session && (session.terminal.options.theme = theme());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  new MutationObserver(restyle).observe(document.documentElement, { attributeFilter: ["data-theme"] });
}

if (card) attachable();
