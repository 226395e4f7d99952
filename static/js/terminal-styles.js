// A document for xterm.js (its option `documentOverride`) whose styles pass our Content-Security-Policy.
//
// xterm.js writes its theme into <style> elements and colours into `style` attributes; `style-src 'self'` refuses both, and neither a
// nonce (attributes take none) nor 'unsafe-inline' is wanted. A constructed sheet and the CSSOM are no inline styles, so that is where
// the same text goes.
function setAttribute(name, value) {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
}

// Stands where xterm.js put its <style>: what is written into it becomes a sheet of the page, until it is removed.
function styleElement() {
  const element = document.createElement("template");
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);
  Object.defineProperty(element, "textContent", { set: (css) => sheet.replaceSync(css) });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((other) => other !== sheet);
    Element.prototype.remove.call(element);
  };
  return element;
}

function createElement(tag, ...more) {
  if (tag === "style") return styleElement();
  const element = document.createElement(tag, ...more);
  element.setAttribute = setAttribute;
  return element;
}

export const styledDocument = new Proxy(document, {
  get(target, name) {
    if (name === "createElement") return createElement;
    const value = Reflect.get(target, name);
    return typeof value === "function" ? value.bind(target) : value;
  },
});
