// Messages go by themselves after a while, errors stay; and a failed request of htmx becomes a message.
const SECONDS = 6;

export function toast(text, tone = "green") {
  const item = document.createElement("li");
  item.className = "toast";
  item.dataset.toast = "";
  item.dataset.tone = tone;
  const words = document.createElement("span");
  words.textContent = text;
  const close = document.createElement("button");
  close.type = "button";
  close.dataset.toastClose = "";
  close.setAttribute("aria-label", "Close the message");
  close.textContent = "✕";
  item.append(words, close);
  document.getElementById("toasts")?.append(item);
  fade(item);
}

function fade(item) {
  if (item.dataset.tone !== "red") setTimeout(() => item.remove(), SECONDS * 1000);
}

document.querySelectorAll("[data-toast]").forEach(fade);
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-toast-close]")) event.target.closest("[data-toast]").remove();
});
document.addEventListener("htmx:sendError", (event) => {
  if (event.detail.requestConfig?.verb !== "get") toast("The server does not answer. Nothing was sent; try again.", "red");
});
document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status >= 500) toast("The server could not do that. What went wrong stands in its log.", "red");
  if (event.detail.xhr.status === 403) toast("You may not do this, or your session has ended: load the page again.", "red");
});
// A refusal (403) or a lost page (404) is no fragment to be put in place.
document.addEventListener("htmx:beforeSwap", (event) => {
  const status = event.detail.xhr.status;
  if (status === 403 || status === 404 || event.detail.xhr.responseURL.includes("/sign-in/")) event.detail.shouldSwap = false;
});
