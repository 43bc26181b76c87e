// terminal.js - xterm.js, of Debian's package, which is modules of CommonJS
import { modules } from "./xterm/modules.js";
import { open, onText, sendText } from "./connection.js";

const loaded = new Map();

// "../b/c" as "a/x/y.js" means it.
function resolve(from, name) {
  const parts = from.split("/").slice(0, -1);
  for (const part of name.split("/"))
    if (part === "..")
      parts.pop();
    else if (part !== ".")
      parts.push(part);
  return `${parts.join("/")}.js`;
}

function load(name) {
  if (!loaded.has(name)) {
    const module = { exports: {} };
    loaded.set(name, module);
    modules[name](module.exports, (other) => load(resolve(name, other)), module);
  }
  return loaded.get(name).exports;
}

const { Terminal } = load("public/Terminal.js");

export function start(target) {
  const terminal = new Terminal({ cols: 80, rows: 25, scrollback: 2000, screenReaderMode: true });
  const socket = open("console");

  terminal.open(target);
  terminal.on("data", (text) => sendText(socket, text));
  onText(socket, (text) => terminal.write(text));
  return terminal;
}
