// Moments in the reader's own zone, and timers that run: data-clock, data-timer (since), data-until.
export function spoken(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} m ${two(whole % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${two(minutes % 60)} m`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function refresh(root = document) {
  const now = Date.now();
  for (const element of root.querySelectorAll("[data-clock]")) set(element, clock.format(new Date(element.dateTime)));
  for (const element of root.querySelectorAll("[data-timer]")) set(element, spoken((now - Date.parse(element.dataset.timer)) / 1000));
  for (const element of root.querySelectorAll("[data-until]")) {
    const left = (Date.parse(element.dataset.until) - now) / 1000;
    set(element, left > 0 ? `in ${spoken(left)}` : "now");
  }
}

refresh();
setInterval(() => document.hidden || refresh(), 1000);
document.addEventListener("htmx:afterSwap", () => refresh());
