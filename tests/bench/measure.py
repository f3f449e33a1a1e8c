"""What one run of a stage took, and how it is shown beside its floor."""

from dataclasses import dataclass
from statistics import median

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Measurement:
    """Events handled, wall seconds, and CPU seconds of the measured process (not of servers)."""

    events: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds

    @property
    def cpu_per_100k(self) -> float:
        """CPU seconds per 100,000 events."""
        return self.cpu_seconds / self.events * 100_000


@dataclass(slots=True)
class Stage:
    """A stage's runs and its floor's, in pairs."""

    name: str
    ours: list[Measurement]
    floor: list[Measurement]
    note: str = ""

    @property
    def ratio(self) -> float:
        """The median over the pairs of our rate to the floor's."""
        pairs = zip(self.ours, self.floor, strict=True)
        return median(ours.rate / floor.rate for ours, floor in pairs)

    def as_dict(self) -> dict[str, object]:
        """The figures, for a file."""
        return {
            "stage": self.name,
            "events_per_second": round(median(m.rate for m in self.ours)),
            "floor_events_per_second": round(median(m.rate for m in self.floor)),
            "ratio": round(self.ratio, 3),
            "cpu_seconds_per_100k": round(median(m.cpu_per_100k for m in self.ours), 2),
            "floor_cpu_seconds_per_100k": round(median(m.cpu_per_100k for m in self.floor), 2),
            "runs": len(self.ours),
            "note": self.note,
        }


def table(stages: list[Stage], title: str) -> Table:
    """The stages as a table for a terminal."""
    shown = Table(title=title)
    shown.add_column("stage")
    headings = ("events/s", "floor events/s", "ratio", "CPU s/100 k", "floor CPU s/100 k")
    for heading in headings:
        shown.add_column(heading, justify="right")
    shown.add_column("note")
    for stage in stages:
        figures = stage.as_dict()
        shown.add_row(
            stage.name,
            f"{figures['events_per_second']:,}",
            f"{figures['floor_events_per_second']:,}",
            f"{stage.ratio:.2f}",
            f"{figures['cpu_seconds_per_100k']:.2f}",
            f"{figures['floor_cpu_seconds_per_100k']:.2f}",
            stage.note,
        )
    return shown
