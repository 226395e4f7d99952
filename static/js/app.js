// What every page has. Each module attaches itself to its data- attributes, also in parts that htmx swaps in.
import "./csrf.js";
import "./theme.js";
import "./dialogs.js";
import "./toasts.js";
import "./times.js";
import "./keys.js";
import "./palette.js";
import "./composer.js";
import "./copy.js";
import "./launch.js";
import "./wakes.js";
import "./run.js";
import "./log.js";
import "./terminal.js";
import "./file-keys.js";
import "./focus.js";
import "./menus.js";
