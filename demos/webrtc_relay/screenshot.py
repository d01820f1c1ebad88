"""The relay's page with the sample call, for the README.

python demos/webrtc_relay/screenshot.py docs/relay_page.png
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from browser import chromium, running_relay, wait_for, write_camera


def main() -> None:
    """Start the relay and a browser, press Start, move the slider to the middle, wait for a restored picture, shoot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("output", type=Path)
    parser.add_argument("--split", type=int, default=50, help="per cent of the picture that shows the original")
    parser.add_argument("--fps", type=int, default=30, help="of the camera; fewer where the machine is busy")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        camera = write_camera(folder / "camera.y4m", fps=options.fps)
        with running_relay(folder) as address, chromium(camera) as context:
            page = context.new_page()
            page.goto(f"{address}/")
            page.get_by_role("button", name="Start").click()
            page.get_by_text("Connected.").wait_for(timeout=30_000)
            page.get_by_label("Before / after").fill(str(options.split))
            page.evaluate("document.querySelector('#device option').textContent = 'Camera'")  # else a file's path
            level = "document.getElementById('n-level').textContent"
            wait_for(page, "parseFloat(document.getElementById('n-fps').textContent) > 1")
            page.wait_for_timeout(4000)
            wait_for(page, f"!['bypass', '\u2013'].includes({level})")
            shot = options.output.with_suffix(".part.png")
            page.screenshot(path=shot)
            os.replace(shot, options.output)


if __name__ == "__main__":
    main()
