// A button that copies the text of an address; hidden where no script runs.
import { toast } from "./toasts.js";

async function copy(button) {
  const answer = await fetch(button.dataset.copyFrom).catch(() => null);
  if (!answer?.ok) return toast("The server did not answer with the text; try again.", "red");
  try {
    await navigator.clipboard.writeText(await answer.text());
    toast("The text is copied. Its secrets are masked.");
  } catch {
    toast("The browser did not allow copying: use Download.", "red");
  }
}

for (const button of document.querySelectorAll("[data-copy-from]")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}
