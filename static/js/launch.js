// The launch form: "Copy as link" writes what is filled in as an address, and another project shows its own choices.
import { toast } from "./toasts.js";

const FIELDS = ["project", "task", "title", "agent", "command", "image", "workdir", "env", "model", "wall", "permission_policy"];

function address(form) {
  const data = new FormData(form);
  const query = new URLSearchParams();
  for (const name of FIELDS) {
    const value = data.get(name);
    if (value) query.set(name, value);
  }
  return `${location.origin}${location.pathname}?${query}`;
}

const form = document.querySelector("[data-launch]");
if (form) {
  const button = form.querySelector("[data-copy-link]");
  button.hidden = false;
  button.addEventListener("click", async () => {
    const link = address(form);
    try {
      await navigator.clipboard.writeText(link);
      toast("The link is copied. It opens this form filled in.");
    } catch {
      history.replaceState(null, "", link);
      toast("The browser did not allow copying: the link is in the address bar.");
    }
  });
  form.elements.project.addEventListener("change", () => {
    // Placeholders and the choice of a model belong to the project; what was typed goes along.
    const query = new URL(address(form));
    for (const name of ["agent", "model", "wall"]) query.searchParams.delete(name);
    location.replace(query);
  });
}
