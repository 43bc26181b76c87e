// connection.js - WebSockets to the machine, and the monitor's commands over one
//
// The token is behind the '#' of the address that trapeze printed. No request carries it there; it
// goes as a subprotocol, which the server asks for. It is kept for this tab and this machine, so
// that the page can be loaded again, and taken out of the address.

const KEY = "token";

if (location.hash.length > 1) {
  sessionStorage.setItem(KEY, location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
}

// The address of another start, in the same tab.
addEventListener("hashchange", () => location.reload());

export const token = sessionStorage.getItem(KEY);

export function open(path) {
  const socket = new WebSocket(`ws://${location.host}/${path}`, ["trapeze", `token.${token}`]);
  socket.binaryType = "arraybuffer";
  return socket;
}

// Bytes that come, as text.
export function onText(socket, take) {
  const decoder = new TextDecoder();
  socket.addEventListener("message", (event) => take(decoder.decode(event.data, { stream: true })));
}

const encoder = new TextEncoder();

export function sendText(socket, text) {
  if (socket.readyState === WebSocket.OPEN)
    socket.send(encoder.encode(text));
}

// docs/design/control.md: a line of JSON each way, answered in order.
export class Monitor {
  constructor(onEvent, onClose) {
    this.waiting = [];
    this.line = "";
    this.socket = open("monitor");
    this.opened = new Promise((resolve) => this.socket.addEventListener("open", resolve));
    onText(this.socket, (text) => {
      const lines = (this.line + text).split("\n");
      this.line = lines.pop();
      for (const line of lines) {
        const message = JSON.parse(line);
        if ("event" in message)
          onEvent(message);
        else
          this.waiting.shift()?.(message);
      }
    });
    this.socket.addEventListener("close", (event) => {
      for (const answer of this.waiting.splice(0))
        answer({ ok: false, error: "the connection is over" });
      onClose(event.code);
    });
  }

  // The reply; its ok is false if it did not work.
  ask(command, values = {}) {
    return new Promise((resolve) => {
      if (this.socket.readyState !== WebSocket.OPEN) {
        resolve({ ok: false, error: "there is no connection" });
        return;
      }
      this.waiting.push(resolve);
      sendText(this.socket, JSON.stringify({ command, ...values }) + "\n");
    });
  }
}
