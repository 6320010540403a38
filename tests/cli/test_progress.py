"""The bar that moves: whatever breaks off a run, the terminal gets its cursor back."""

import io

import pytest
from rich.console import Console

from maskplay.cli.progress import EpochProgress


def test_a_bar_that_is_broken_off_gives_the_cursor_back() -> None:
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True)
    with pytest.raises(KeyboardInterrupt), EpochProgress(console, 2, 9) as progress:
        progress.set_params({"steps": 9})
        progress.on_epoch_begin(0)
        assert "\x1b[?25l" in terminal.getvalue()
        raise KeyboardInterrupt
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")
