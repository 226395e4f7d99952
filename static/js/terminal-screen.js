// The screen of a terminal: xterm.js, fetched when it is first needed, which trusts nothing that the pod writes.
import { styleByCssom } from "./terminal-styles.js";

const RESIZE_MS = 120;
const SCROLLBACK_LINES = 5_000;

function theme(element) {
  const colour = (name) => getComputedStyle(element).getPropertyValue(name).trim();
  return {
    background: colour("--surface"),
    foreground: colour("--text"),
    cursor: colour("--accent"),
    cursorAccent: colour("--surface"),
    selectionBackground: colour("--accent"),
    selectionForeground: colour("--accent-on"),
  };
}

// No link is opened and the clipboard (OSC 52) is out of reach; title and window xterm.js leaves alone by itself (`windowOptions`).
function distrust(terminal, say) {
  terminal.parser.registerOscHandler(52, () => true);
  terminal.options.linkHandler = {
    activate: (event, address) => say(`This link is not opened: ${address.slice(0, 300)}`),
  };
}

function handleKeys(terminal, onLeave) {
  terminal.attachCustomKeyEventHandler((event) => {
    const leaves = event.ctrlKey && event.shiftKey && (event.key === "Escape" || event.key === "ArrowUp");
    if (leaves && event.type === "keydown") onLeave();
    // With a selection Ctrl-C copies, as everywhere in the browser; without one it is the interrupt.
    const copies = event.ctrlKey && !event.shiftKey && event.key === "c" && terminal.hasSelection();
    return !leaves && !copies;
  });
}

// A terminal in `element` that follows its size and the theme; `close` stops that and takes no more input, `dispose` removes it.
export async function openScreen(element, { screenReaderMode, say, onLeave }) {
  styleByCssom();
  const [{ Terminal }, { FitAddon }] = await Promise.all([
    import("../vendor/xterm/xterm.mjs"),
    import("../vendor/xterm/addon-fit.mjs"),
  ]);
  const terminal = new Terminal({
    fontFamily: getComputedStyle(element).fontFamily,
    fontSize: 13,
    minimumContrastRatio: 4.5,
    screenReaderMode,
    scrollback: SCROLLBACK_LINES,
    theme: theme(element),
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  distrust(terminal, say);
  handleKeys(terminal, onLeave);
  element.replaceChildren();
  terminal.open(element);
  fit.fit();

  let timer = 0;
  const sizes = new ResizeObserver(() => {
    clearTimeout(timer);
    timer = setTimeout(() => fit.fit(), RESIZE_MS);
  });
  sizes.observe(element);
  const restyle = () => { terminal.options.theme = theme(element); };
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", restyle);
  const chosen = new MutationObserver(restyle);
  chosen.observe(document.documentElement, { attributeFilter: ["data-theme"] });

  const close = () => { terminal.options.disableStdin = true; };
  const dispose = () => {
    clearTimeout(timer);
    sizes.disconnect();
    chosen.disconnect();
    system.removeEventListener("change", restyle);
    terminal.dispose();
  };
  return { terminal, close, dispose };
}
