// Forms that came over the socket are the same for every viewer, so they carry no token: the page's own is put in on sending.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || form.querySelector("[name=csrfmiddlewaretoken]")) return;
  const token = document.createElement("input");
  token.type = "hidden";
  token.name = "csrfmiddlewaretoken";
  token.value = JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRFToken"];
  form.append(token);
}, { capture: true });
