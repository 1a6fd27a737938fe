"""A line that counts photos while they are explained, and says how long the others take."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from contrex.errors import ImageError, printable


class Progress:
    """Says on stderr how many of `total` are done, and the time left: in one line of a terminal, elsewhere in a line
    for each tenth of ten or more. Of a single one it says nothing."""

    def __init__(self, total: int) -> None:
        self.num_unreadable = 0
        self._total, self._done, self._start = total, 0, time.monotonic()
        self._is_live = sys.stderr.isatty()
        self._show()

    @contextmanager
    def photo(self) -> Iterator[None]:
        """Count the photo that is worked on inside.

        Raises:
            ImageError: a single photo cannot be read; of many it is told and counted, and the others follow.
        """
        failure = ""
        try:
            yield
        except ImageError as error:
            if self._total == 1:
                raise
            self.num_unreadable += 1
            failure = f"contrex: {error}"
        self.step(failure)

    def step(self, failure: str = "") -> None:
        """One more is done, or has failed."""
        if failure:
            self.tell(failure, file=sys.stderr)
        self._done += 1
        tenth = self._total / 10
        if self._is_live or self._done // tenth > (self._done - 1) // tenth:
            self._show()

    def tell(self, *lines: str, file: TextIO | None = None) -> None:
        """Print lines on stdout, or another file, above the count."""
        self._clear()
        for line in lines:
            print(printable(line), file=file)
        if self._is_live and self._done < self._total:
            self._show()

    def line(self) -> str:
        """The count and the time left: "12 of 500 photos, 3 min left"."""
        count = f"{self._done} of {self._total} photos"
        if not self._done or self._done == self._total:
            return count
        left = (time.monotonic() - self._start) / self._done * (self._total - self._done)
        return f"{count}, {f'{left / 60:.0f} min' if left >= 90 else f'{left:.0f} s'} left"

    def _show(self) -> None:
        if self._total > 1 if self._is_live else self._done and self._total >= 10:
            text = f"\r\x1b[K{self.line()}" if self._is_live else self.line()
            end = "\n" if self._done == self._total or not self._is_live else ""
            print(text, end=end, file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._is_live and self._total > 1 and self._done < self._total:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
