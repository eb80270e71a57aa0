"""Drives Chromium by its DevTools protocol over two pipes, without any package."""

import json
import os
import select
import shutil
import subprocess
from base64 import b64decode
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --disable-background-networking "
    # a page that nobody sees would not be drawn
    "--disable-renderer-backgrounding --disable-backgrounding-occluded-windows --disable-background-timer-throttling"
)
PATIENCE = 60  # seconds; a guard against hanging


class Browser:
    """A headless Chromium with one page; ``requests`` and ``errors``: what the page asked for and complained of."""

    def __init__(self, profile: Path):
        ours, (read, write) = os.pipe(), os.pipe()
        # Chromium reads descriptor 3 and writes 4.
        shell = f'exec "$0" {FLAGS} --remote-debugging-pipe --user-data-dir="$1" 3<&{ours[0]} 4>&{write}'
        command = ["bash", "-c", shell, CHROMIUM, str(profile)]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, pass_fds=[ours[0], write], **streams)
        os.close(ours[0])
        os.close(write)
        self._out, self._in = os.fdopen(ours[1], "wb", 0), read
        self._number, self._rest, self._session = 0, b"", None
        self.requests, self.errors, self.events = [], [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)
        self._out.close()
        os.close(self._in)

    def call(self, method: str, **parameters) -> dict:
        """Send a command and return its result; events that come meanwhile are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _next(self) -> dict:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], PATIENCE)
            assert ready, f"Chromium has been silent for {PATIENCE} seconds"
            read = os.read(self._in, 1 << 20)
            assert read, "Chromium ended"
            self._rest += read
        text, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(text)
        name, said = message.get("method"), message.get("params", {})
        self.events.append(name)
        if name == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif name == "Runtime.exceptionThrown":
            self.errors.append(said["exceptionDetails"])
        elif name == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.errors.append(said["args"])
        elif name == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.errors.append(said["entry"])
        return message

    def open(self, path: Path) -> None:
        """Load a file, and wait until it is there."""
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while "Page.loadEventFired" not in self.events:
            self._next()

    def look(self, width: int, height: int, dark: bool = False) -> None:
        """Set the size of the window, and whether the reader prefers a dark page."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])

    def run(self, script: str):
        """Return the value of an expression of the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def move(self, selector: str, click: bool = False) -> None:
        """Move the mouse to the middle of an element, and perhaps click."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center', behavior: 'instant'});"
            " const b = e.getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2]; })()"
        )
        place = {"x": box[0], "y": box[1]}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", **place)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def press(self, key: str) -> None:
        """Press a key of :data:`KEYS`."""
        code, text = KEYS[key]
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def printed(self) -> bytes:
        """Return the page as PDF."""
        return b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])


#: Key to its number and the character that it types.
KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), "Escape": (27, ""), "ArrowRight": (39, "")}
