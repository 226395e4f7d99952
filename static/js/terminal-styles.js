// Lets xterm.js style itself under our strict Content-Security-Policy.
//
// xterm.js writes its theme into <style> elements and colours into `style` attributes; `style-src 'self'` refuses both, a nonce is no help
// (attributes take none), and 'unsafe-inline' is not wanted. A constructed sheet and the CSSOM are no inline styles: the same text goes
// there. Its option `documentOverride` would be the place, but 6.0.0 makes its rows and one of its sheets from the page's own document.
let isDone = false;

function setAttribute(name, value) {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
}

// Stands where a <style> would: what is written into it becomes a sheet of the page, until it is removed.
function styleElement(create) {
  const element = create("template");
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);
  Object.defineProperty(element, "textContent", { set: (css) => sheet.replaceSync(css) });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((other) => other !== sheet);
    Element.prototype.remove.call(element);
  };
  return element;
}

// From here on elements that scripts of this page make take their styles by the CSSOM.
export function styleByCssom() {
  if (isDone) return;
  isDone = true;
  const create = document.createElement.bind(document);
  document.createElement = (tag, ...more) => {
    if (tag === "style") return styleElement(create);
    return Object.assign(create(tag, ...more), { setAttribute });
  };
}
