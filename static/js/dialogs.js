// Opens the dialog that a control names in data-dialog, and closes it by data-close or a click beside it.
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-dialog]");
  const asked = opener && document.getElementById(opener.dataset.dialog);
  if (asked) {
    // The opener may be a link to the same question on a page of its own.
    event.preventDefault();
    asked.showModal();
  }
  const dialog = event.target.closest("dialog");
  const closer = event.target.closest("[data-close]");
  if (!dialog || (!closer && event.target !== dialog)) return;
  event.preventDefault();
  dialog.close();
});
