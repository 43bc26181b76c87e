// screen.js - noVNC, of Debian's package
import RFB from "./novnc/core/rfb.js";
import { open } from "./connection.js";

export function start(target) {
  const screen = new RFB(target, open("screen"), {});

  screen.scaleViewport = true;
  screen.background = "#000";
  return screen;
}
