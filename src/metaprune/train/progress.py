"""Shows how far a long run is: a bar on a terminal, a line an epoch elsewhere."""

from types import TracebackType

from metaprune.train.randomness import isolated

__all__ = ["Bar"]


class Bar:
    """A progress bar on the error stream, as a context manager."""

    def __init__(self, name: str, total: int, *, shown: bool = True) -> None:
        """Show `name` and how many of `total` steps are done, or nothing at all."""
        with isolated():  # rich draws from Python's when it is loaded
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        self._console = Console(stderr=True, quiet=not shown)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not (shown and self._console.is_terminal),
            transient=True,
        )
        self._task = self._bar.add_task(name, total=total, note="")

    def __enter__(self) -> "Bar":
        """Start to show it."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove it."""
        self._bar.stop()

    def at(self, step: int, note: str = "") -> None:
        """So many steps are done."""
        self._bar.update(self._task, completed=step, note=note)

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)
