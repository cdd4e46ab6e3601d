"""Serves the review page: which of two answers is better, without showing which one is chosen.

Every verdict is on disk (data/reviews/NAME.jsonl) before the next pair is shown, and the command resumes where it
stopped. See docs/REVIEW.md.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from ccai.constitution.principles import Principle
from ccai.review.desk import Desk, View
from ccai.review.server import HOST, Guarded, Prefixed

REVIEWS = Path("data/reviews")
METRICS = Path("metrics/review.json")


def serve(
    desk: Desk,
    principles: Mapping[str, Principle],
    listening: socket.socket,
    prefix: str,
    hosts: Sequence[str],
    *,
    show: bool,
) -> None:
    """Serve the page on loopback until stopped. NiceGUI includes everything it needs: the page loads nothing from other
    hosts.

    Args:
        hosts: further host names, besides those of loopback, by which browsers may open the page.
        prefix: the path that a proxy strips, such as `/jupyter/default/proxy/8765`; empty: from the proxy's headers, or
            none.
        show: open the page in this machine's browser.
    """
    from nicegui import app, ui

    from ccai.review.page import STYLE, Page  # with NiceGUI and matplotlib

    content = Page(desk, principles)

    @ui.page("/", title="Review")
    def page() -> None:
        ui.add_css(STYLE)
        content.show(View())

    if prefix:
        app.add_middleware(Prefixed, prefix=prefix)
    app.add_middleware(Guarded, hosts=hosts)
    print(f"review: {len(desk.verdicts)} of {len(desk.pairs)} pairs done; verdicts go to {desk.log.path}")
    port = listening.getsockname()[1]
    print(f"review: http://{HOST}:{port}/ (Ctrl-C stops)", flush=True)
    ui.run(
        host=HOST,
        port=port,
        fd=listening.fileno(),
        dark=None,  # follows the browser's setting
        language="en-US",
        reload=False,
        show=show,
        show_welcome_message=False,
        reconnect_timeout=30,
        tailwind=False,
        timeout_graceful_shutdown=1,
    )
