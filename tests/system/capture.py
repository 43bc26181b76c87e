"""capture.py - pictures of a screen by a viewer of VNC that others have written: gvnccapture, of Debian's package gvncviewer"""
import os
import re
import shutil
import subprocess

import boot
import screen

FIRST_PORT = 5900  # of display 0


def is_there():
    return bool(shutil.which("gvnccapture"))


def port_of(console, deadline):
    """Of a machine with "--display vnc", which says it."""
    if not console.wait_for(r"vncviewer 127\.0\.0\.1::\d+", deadline):
        boot.fail(console, "it says no port for viewers")
    return int(re.findall(r"vncviewer 127\.0\.0\.1::(\d+)", console.text)[0])


def capture(port, folder, name):
    """What it sees; kept as NAME-client in the folder SCREEN_PICTURES, if it is set."""
    path = os.path.join(os.environ.get("SCREEN_PICTURES", folder), f"{name}-client.png")
    subprocess.run(["gvnccapture", "-q", f"127.0.0.1:{port - FIRST_PORT}", path], check=True, timeout=60)
    with open(path, "rb") as file:
        return screen.Picture(file.read())
