"""browser.py - Chromium without a window, driven as a person would: a small client of WebDriver

W3C's WebDriver is JSON over HTTP, which chromedriver (Debian's package chromium-driver) speaks.
"""
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-extensions --window-size=1100,800""".split()
KEYS = {"down": "\ue015", "up": "\ue013", "enter": "\ue007", "escape": "\ue00c", "shift": "\ue008"}


def is_there():
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


class Browser:
    """One window. What goes wrong raises."""

    def __init__(self, folder):
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        line = ""
        while "successfully on port" not in line:
            line = self.driver.stdout.readline()
            assert line, "chromedriver does not start"
        self.url = "http://127.0.0.1:" + re.findall(r"port (\d+)", line)[0]
        options = {"binary": shutil.which("chromium"), "args": [*FLAGS, f"--user-data-dir={folder}"]}
        wants = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        started = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wants}})
        self.url += f"/session/{started['sessionId']}"

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.read().decode()[:500]}") from error

    def open(self, url):
        self.call("POST", "/url", {"url": url})

    def tab(self):
        """Which one is looked at."""
        return self.call("GET", "/window")

    def new_tab(self):
        return self.call("POST", "/window/new", {"type": "tab"})["handle"]

    def look_at(self, tab):
        self.call("POST", "/window", {"handle": tab})

    def run(self, script, *arguments):
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector):
        return self.call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def click(self, selector):
        self.call("POST", f"/element/{self.find(selector)}/click", {})

    def press(self, keys):
        """Characters, or names from KEYS in braces: 'c', '{enter}'. As on a US keyboard."""
        actions = []
        for name, character in re.findall(r"\{(\w+)\}|(.)", keys, re.S):
            key, shift = KEYS[name] if name else character, character.isupper() or character in '?"(){}*$|&><~_+:'
            strokes = [("keyDown", KEYS["shift"])] * shift + [("keyDown", key), ("keyUp", key)]
            strokes += [("keyUp", KEYS["shift"])] * shift
            actions += [{"type": kind, "value": value} for kind, value in strokes]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def log(self):
        """What the page has said since the last time."""
        return [entry["message"] for entry in self.call("POST", "/se/log", {"type": "browser"})]

    def wait(self, condition, deadline, what):
        """Until condition() is true; returns what it was."""
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < deadline, f"{what}: not in time; the page says {self.log()}"
            time.sleep(0.05)

    def close(self):
        try:
            if "/session/" in self.url:
                self.call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait(10)
