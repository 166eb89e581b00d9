"""`python tests/pictures/draw.py`: status_watch.svg, drawn from what tmux has captured of a real terminal.

An app whose PINs make progress, one of them in a crash loop, is watched in a terminal of tmux; what the screen shows
then, colours included, becomes text of an SVG.
"""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COLUMNS, ROWS = 130, 10
CELL, LINE = 8.43, 19
COLOURS = {"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "36": "#79c0ff", "2": "#8b949e"}

APP = """
import os
from pyworkers import App
app = App("crawler", backoff=(1, 60), workers=6)

@app.worker(pins=5)
def report():
    os._exit(41)

@app.worker()
def crawl(pin):
    for page in app.track(range(400)):
        app.unit(f"page {page}")
        app.sleep(0.01 * (pin + 1))
"""


def capture(directory: Path) -> str:
    """Return the screen of a terminal in which the app is watched, with its colours."""
    (directory / "crawler.py").write_text(APP)
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(directory), "LC_ALL": "C.UTF-8", "PS1": "$ "}
    python, tmux = sys.executable, ["tmux", "-S", str(directory / "tmux")]
    command = [python, "-m", "pyworkers", "crawler:app"]
    with subprocess.Popen(command, cwd=directory, env=environment, stderr=subprocess.DEVNULL) as master:
        try:
            verb = [python, "-m", "pyworkers", "ping", "crawler:app"]
            give_up_at = time.monotonic() + 10
            while subprocess.run(verb, cwd=directory, env=environment, capture_output=True, check=False).returncode:
                assert time.monotonic() < give_up_at, "the instance does not answer"
            size = ["-x", str(COLUMNS), "-y", str(ROWS)]
            watch = f"{python} -m pyworkers status crawler:app --watch"
            subprocess.run([*tmux, "new-session", "-d", *size, watch], cwd=directory, env=environment, check=True)
            time.sleep(3.5)  # the picture is of this moment
            done = subprocess.run([*tmux, "capture-pane", "-p", "-e"], capture_output=True, text=True, check=True)
            subprocess.run([*tmux, "kill-server"], check=True)
            return done.stdout
        finally:
            master.terminate()


def drawn(screen: str) -> str:
    """Return the SVG of what was captured: one text a line, each run of one colour in its place."""
    lines = screen.rstrip("\n").split("\n")
    width, height = round(COLUMNS * CELL) + 20, len(lines) * LINE + 20
    body: list[str] = []
    for number, line in enumerate(lines):
        y, column, style = 25 + number * LINE, 0, ""
        for codes, text in re.findall(r"(?:\x1b\[([\d;]*)m)?([^\x1b]*)", line):
            style = codes if codes or "\x1b" in line else style
            attributes = (
                f' fill="{COLOURS[style]}"' if style in COLOURS else ' font-weight="bold"' if style == "7" else ""
            )
            if text:
                x = 10 + column * CELL
                body.append(
                    f'<text x="{x:.1f}" y="{y}" textLength="{len(text) * CELL:.1f}"{attributes}>{html.escape(text)}</text>'
                )
            column += len(text)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">\n'
        f'<rect width="100%" height="100%" rx="6" fill="#0d1117"/>\n'
        f'<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14" fill="#e6edf3" xml:space="preserve">\n'
        + "\n".join(body)
        + "\n</g>\n</svg>\n"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        (Path(__file__).parent / "status_watch.svg").write_text(drawn(capture(Path(made))))
