// page.js - the page of one machine: buttons, tabs, clipboard, statistics
import { Monitor, token } from "./connection.js";

const POLL_MS = 1000;
const GOING_AWAY = 1001; // the machine has ended

const element = (id) => document.getElementById(id);
const buttons = [...element("buttons").children];

function say(text) {
  element("message").textContent = text;
  element("message").hidden = !text;
}

// ---- what the machine does ----

let machineState = "connecting";
let asleep = false; // suspended to RAM

function showState(state) {
  machineState = state;
  element("state").textContent = asleep && state === "running" ? "asleep" : state;
  element("state").className = state;
  element("pause").textContent = state === "paused" ? "Resume" : "Pause";
  for (const button of buttons)
    button.disabled = state !== "running" && state !== "paused";
}

function onEvent(event) {
  if (event.event === "sleep") {
    asleep = event.asleep;
    showState(machineState);
  }
  if (event.event !== "state")
    return;
  showState(event.state);
  if (event.state === "stopped")
    say(`The machine has ended: ${event.reason}, status ${event.status}.`);
  else
    say(event.reason ?? "");
}

function onClose(code) {
  if (machineState !== "stopped") {
    const ended = code === GOING_AWAY;
    showState(ended ? "stopped" : "not connected");
    say(ended ? "The machine has ended." : "There is no connection to the machine, or the token is that of an earlier start.");
  }
  clearInterval(poll);
}

// ---- buttons ----

function confirmed(text) {
  const question = element("question");

  element("question-text").textContent = text;
  question.returnValue = "";
  question.showModal();
  return new Promise((resolve) => {
    question.addEventListener("close", () => resolve(question.returnValue === "yes"), { once: true });
  });
}

async function press(command, values) {
  const reply = await monitor.ask(command, values);
  if (!reply.ok)
    say(reply.error);
}

const actions = {
  "power": () => press("powerdown"),
  "pause": () => press(machineState === "paused" ? "resume" : "pause"),
  "reset": async () => await confirmed("Reset the machine? What the guest has not saved is lost.") && press("reset"),
  "ctrl-alt-del": () => press("key", { keys: "ctrl-alt-del" }),
  "quit": async () => await confirmed("End the machine, as if power failed? What the guest has not saved is lost.") && press("stop"),
};

for (const [id, action] of Object.entries(actions))
  element(id).addEventListener("click", action);

// ---- statistics ----

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;

  for (; bytes >= 1024 && unit < units.length - 1; unit++)
    bytes /= 1024;
  return `${bytes.toFixed(unit && bytes < 100 ? 1 : 0)} ${units[unit]}`;
}

const sum = (list, name) => list.reduce((total, item) => total + item[name], 0);

const figures = (now, before) => {
  const seconds = (now.host_ns - before.host_ns) / 1e9;
  const rate = (list, name) => `${size((sum(now[list], name) - sum(before[list], name)) / seconds)}/s`;
  const texts = [
    `CPU ${((now.cpu_ns - before.cpu_ns) / 1e7 / seconds).toFixed(0)} %`,
    `Memory ${size(now.host_bytes)} of ${size(memoryBytes)}`,
  ];

  if (now.disks.length && now.disks.length === before.disks.length)
    texts.push(`Disk read ${rate("disks", "read_bytes")}, written ${rate("disks", "written_bytes")}`);
  if (now.networks.length && now.networks.length === before.networks.length)
    texts.push(`Network sent ${rate("networks", "sent_bytes")}, received ${rate("networks", "received_bytes")}`);
  return texts;
};

let memoryBytes = 0;
let before = null;

async function showStatistics() {
  const now = await monitor.ask("statistics");

  if (!now.ok)
    return;
  if (before)
    element("statistics").replaceChildren(...figures(now, before).map((text) => {
      const item = document.createElement("span");
      item.textContent = text;
      return item;
    }));
  before = now;
}

// ---- screen and console ----

// A terminal measures its font where it is shown, so each starts when it is looked at first. What is
// not packaged on the host says which package it is.
const views = {
  screen: { module: "./screen.js", needs: "novnc/core/rfb.js" },
  console: { module: "./terminal.js", needs: "xterm/modules.js" },
};

async function startView(name) {
  const view = views[name];

  try {
    const { start } = await import(view.module);
    view.shown = start(element(name), (text) => { element("clipboard-text").value = text; });
    view.shown.focus();
  } catch (error) {
    const answer = await fetch(view.needs);
    const text = document.createElement("p");
    text.textContent = answer.ok ? `This does not work: ${error}` : await answer.text();
    element(name).replaceChildren(text);
  }
}

function choose(name) {
  for (const other of Object.keys(views)) {
    element(other).hidden = other !== name;
    element(`show-${other}`).setAttribute("aria-selected", other === name);
  }
  views[name].started ??= startView(name);
  views[name].shown?.focus();
}

// ---- clipboard: it is the viewers'; the guest gets it typed ----

element("clipboard-text").addEventListener("change", (event) => {
  views.screen.shown?.clipboardPasteFrom(event.target.value);
});

element("type").addEventListener("click", () => {
  const text = element("clipboard-text").value;
  press("type", { text: text.replaceAll("{", "{{").replaceAll("\n", "{enter}").replaceAll("\t", "{tab}") });
});

for (const name of Object.keys(views))
  element(`show-${name}`).addEventListener("click", () => choose(name));

// ---- start ----

let monitor = null;
let poll = 0;

async function start() {
  monitor = new Monitor(onEvent, onClose);
  await monitor.opened;
  await monitor.ask("events", { on: true });
  const status = await monitor.ask("status");
  const shot = await monitor.ask("screenshot", { text: true });
  const hasScreen = shot.ok || !shot.error.includes("no screen");

  element("name").textContent = status.name;
  document.title = `${status.name} - Trapeze`;
  memoryBytes = status.memory_bytes;
  asleep = status.asleep === true;
  showState(status.state);
  poll = setInterval(showStatistics, POLL_MS);
  showStatistics();
  element("show-screen").hidden = !hasScreen;
  choose(hasScreen ? "screen" : "console");
}

if (token) {
  start();
} else {
  showState("not connected");
  say("Open the address that trapeze printed, with what is behind its '#'.");
}
