"""How the command line passes on log records."""

from __future__ import annotations

import codecs
import io
import logging
import sys
import threading
import warnings

from cliptune.text import one_line

# For screens and pipes whose encoding lacks them, such as those of Windows in Western Europe.
_PLAIN = {"→": "->", "█": "#", "▏": "|", "…": "...", "–": "-", "×": "x", "±": "+-", "\ufffd": "?"}


def write_any_text() -> None:
    """Never fail for want of a character: stdout and stderr write it plainly, or as an escape.

    A pipe or a file behind `>` takes the system's encoding, which may be cp1252 or ASCII.
    """
    codecs.register_error("cliptune.plain", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not None, as without a console
            stream.reconfigure(errors="cliptune.plain")


def _plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    escaped = (_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking)
    return "".join(escaped), error.end


def for_terminal(text: str) -> str:
    """`text`, its lines kept, without characters that a terminal might act on."""
    return "\n".join(one_line(line) for line in text.split("\n"))


class _AboveTheBar(logging.Handler):
    """Writes records to stderr without breaking a progress bar that is being drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        tqdm.write(for_terminal(prefix + self.format(record)), file=sys.stderr)


def set_up_logging(*, debug: bool) -> None:
    """Show cliptune's own records as plain lines on stderr; other libraries' with `debug`."""
    handler = _AboveTheBar()
    logger = logging.getLogger("cliptune")
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    logger.propagate = False
    threading.excepthook = _in_a_thread
    # Pillow's: a photo whose EXIF is cut short is read without, a very large one is read.
    warnings.filterwarnings("ignore", module="PIL")
    if debug:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)


def _in_a_thread(fault: threading.ExceptHookArgs) -> None:
    """TensorBoard's writing thread ends where it cannot write; the main one warns of the same."""
    if not isinstance(fault.exc_value, OSError):
        threading.__excepthook__(fault)
