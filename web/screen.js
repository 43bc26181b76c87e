// screen.js - noVNC, of Debian's package
import RFB from "./novnc/core/rfb.js";
import { open } from "./connection.js";

// onClipboard is told of what other viewers copy; clipboardPasteFrom() of what is returned tells them.
export function start(target, onClipboard) {
  const screen = new RFB(target, open("screen"), {});

  screen.scaleViewport = true;
  screen.background = "#000";
  screen.addEventListener("clipboard", (event) => onClipboard(event.detail.text));
  return screen;
}
