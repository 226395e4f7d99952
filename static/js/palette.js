// Ctrl-K: pages and actions that are on the page already, and what the server's search finds.
const palette = document.querySelector("[data-palette]");
const box = palette?.querySelector("input");
const list = palette?.querySelector("ul");
const fixed = list ? [...list.children] : [];
let chosen = 0;
let asked = 0;

function choose(index) {
  const rows = [...list.children];
  if (!rows.length) return box.removeAttribute("aria-activedescendant");
  chosen = (index + rows.length) % rows.length;
  rows.forEach((row, at) => row.setAttribute("aria-selected", String(at === chosen)));
  box.setAttribute("aria-activedescendant", rows[chosen].id);
  rows[chosen].scrollIntoView({ block: "nearest" });
}

function row(result, index) {
  const item = document.createElement("li");
  item.id = `found-${index}`;
  item.setAttribute("role", "option");
  item.dataset.url = result.url;
  const name = document.createElement("bdi");
  name.textContent = result.label;
  const kind = document.createElement("span");
  kind.textContent = result.kind;
  item.append(name, kind);
  return item;
}

async function find() {
  const text = box.value.trim();
  const number = ++asked;
  const words = text.toLowerCase();
  list.replaceChildren(...fixed.filter((entry) => entry.textContent.toLowerCase().includes(words)));
  choose(0);
  if (text.length < 2) return;
  const address = `${palette.dataset.search}?q=${encodeURIComponent(text)}`;
  const answer = await fetch(address, { headers: { Accept: "application/json" } }).catch(() => null);
  if (!answer?.ok || number !== asked) return;
  const { results } = await answer.json();
  list.append(...results.map(row));
  choose(chosen);
}

function go() {
  const url = list.children[chosen]?.dataset.url;
  if (url?.startsWith("/")) location.assign(url);
}

if (palette) {
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      if (palette.open) return palette.close();
      box.value = "";
      palette.showModal();
      find();
    }
  });
  let timer = 0;
  box.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(find, 120);
  });
  box.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      choose(chosen + (event.key === "ArrowDown" ? 1 : -1));
    } else if (event.key === "Enter") {
      event.preventDefault();
      go();
    }
  });
  list.addEventListener("click", (event) => {
    const at = [...list.children].indexOf(event.target.closest("li"));
    if (at >= 0) {
      choose(at);
      go();
    }
  });
}
