"""A headless Chromium, driven through its DevTools protocol: what a person would do, with keys alone."""

import base64
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import axe_core_python
import websocket

AXE = Path(axe_core_python.__file__).with_name("axe.min.js")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 30.0  # seconds
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--no-default-browser-check", "--remote-debugging-port=0", "--remote-allow-origins=*", "--hide-scrollbars"),
)
CODES = {  # key -> (code, number); letters and digits are made below
    "ArrowLeft": ("ArrowLeft", 37),
    "ArrowRight": ("ArrowRight", 39),
    "ArrowUp": ("ArrowUp", 38),
    "ArrowDown": ("ArrowDown", 40),
    "Backspace": ("Backspace", 8),
    "Enter": ("Enter", 13),
    "Escape": ("Escape", 27),
    "Tab": ("Tab", 9),
}


class Connection:
    """To the browser itself, or to one of its tabs."""

    def __init__(self, address: str) -> None:
        self.socket = websocket.create_connection(address, timeout=PATIENCE)
        self.number = 0

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A method's result; what else the browser says meanwhile is noted."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            self.note(message)
            if message.get("id") == self.number:
                assert "error" not in message, f"{method}: {message.get('error')}"
                return message["result"]

    def note(self, message: dict[str, Any]) -> None:
        pass


class Page(Connection):
    """One tab. ``requests`` are the addresses that it asked for, ``faults`` what it threw or wrote on its console."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.requests: list[str] = []
        self.faults: list[str] = []
        self.loads = 0
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.call(f"{domain}.enable")

    def note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Page.loadEventFired":
                self.loads += 1
            case "Runtime.exceptionThrown":
                self.faults.append(json.dumps(params["exceptionDetails"])[:500])
            case "Log.entryAdded":
                self.faults.append(json.dumps(params["entry"])[:500])

    def open(self, address: str) -> None:
        """Load a page, also the one that is there; keys go to this tab."""
        self.call("Page.bringToFront")
        before = self.loads
        self.call("Page.navigate", url=address)
        while self.loads == before:  # asked now, the old page might answer as if it were the new one
            self.note(json.loads(self.socket.recv()))

    def ask(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, script: str) -> Any:
        """Wait for an expression to become true; returns its value."""
        end = time.monotonic() + PATIENCE
        while not (value := self.ask(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.01)
        return value

    def strike(self, key: str, held: bool = False) -> None:
        """Press and release a key; ``held``: as the keyboard repeats it."""
        letter = len(key) == 1
        code, number = CODES.get(key) or ((f"Digit{key}" if key.isdigit() else f"Key{key.upper()}"), ord(key.upper()))
        text = {"text": key} if letter else {"text": "\r"} if key == "Enter" else {}
        about = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        self.call("Input.dispatchKeyEvent", type="keyDown", autoRepeat=held, **about, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def screen(self, width: int, height: int, dark: bool = False, touch: bool = False) -> None:
        scale = 2 if touch else 1
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=touch
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def violations(self) -> list[list[Any]]:
        """What axe finds in the page as it is: impact, rule, the first element, what to do, how many elements."""
        self.ask(AXE.read_text())
        return self.ask(
            "axe.run().then(({violations}) => violations.map(({id, impact, nodes}) => [impact, id, nodes[0].html, "
            "nodes[0].failureSummary, nodes.length]))"
        )

    def named(self, role: str) -> list[str]:
        """Names, as a screen reader says them, of all that has a role."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        shown = [node for node in nodes if not node.get("ignored") and node.get("role", {}).get("value") == role]
        return [node.get("name", {}).get("value", "") for node in shown]


@contextmanager
def chromium(folder: Path) -> Iterator[Callable[[], Page]]:
    """A browser of its own that saves downloads to ``folder/saved``; yields what opens a new tab."""
    assert CHROMIUM
    saved, profile = folder / "saved", folder / "profile"
    saved.mkdir(parents=True)
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    sockets = []
    try:
        port_file, end = profile / "DevToolsActivePort", time.monotonic() + PATIENCE
        while not (port_file.is_file() and port_file.read_text().count("\n")):
            assert process.poll() is None, "the browser has ended"
            assert time.monotonic() < end, "the browser does not start"
            time.sleep(0.05)
        port, path = port_file.read_text().split("\n")[:2]
        browser = Connection(f"ws://127.0.0.1:{port}{path}")
        sockets.append(browser.socket)
        browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(saved))

        def tab() -> Page:
            target = browser.call("Target.createTarget", url="about:blank")["targetId"]
            page = Page(f"ws://127.0.0.1:{port}/devtools/page/{target}")
            sockets.append(page.socket)
            return page

        yield tab
    finally:
        for each in sockets:
            each.close()
        process.terminate()
        process.wait(PATIENCE)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of a folder, as ``python -m http.server`` is one."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
