"""A page of gradio, shown without the net; the packages bring gradio, in their extra ``demo``."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from typing import Any

from papercommons.errors import DataError, missing_library, reason

log = logging.getLogger("papercommons")


def check_gradio(package: str) -> None:
    """Raise DataError unless gradio is installed; and keep it from calling home.

    Args:
        package: distribution whose extra ``demo`` brings it.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    if find_spec("gradio") is None:
        raise missing_library("the page", "gradio", f"{package}[demo]")


def show_page(gradio: Any, page: Any, host: str, port: int) -> None:
    """Show a page until interrupted.

    Args:
        gradio: the library.
        page: its Blocks.
        host: address to listen on.
        port: likewise.

    Raises:
        DataError: the port is taken.
    """
    fonts = ["system-ui", "sans-serif"]  # gradio's own come from the net
    log.info("http://%s:%d/ shows the page until Ctrl-C ends it", host, port)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            theme=gradio.themes.Default(font=fonts, font_mono=fonts),
            footer_links=[],
        )
    except OSError as error:
        raise DataError(f"--port {port}: {reason(error)}") from error
