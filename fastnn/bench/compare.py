"""This run against an older one: which rows became slower by more than noise and a margin, and which faster."""

from __future__ import annotations

from dataclasses import dataclass

from fastnn.bench.results import OWN, Figure, Results, Row, duration

#: What a row may be slower by, beside the noise of both runs.
MARGIN = 0.1


@dataclass(frozen=True)
class Change:
    """One contender of one row in both runs."""

    row: Row
    contender: str
    old: Figure
    new: Figure
    noise: float
    margin: float

    @property
    def ratio(self) -> float:
        """The new time over the old one."""
        return self.new.median / self.old.median

    @property
    def verdict(self) -> str:
        """Slower or faster than noise and margin explain, or the same."""
        allowed = 1 + self.noise + self.margin
        if self.ratio > allowed:
            return "slower"
        return "faster" if self.ratio < 1 / allowed else "same"

    def __str__(self) -> str:
        return (
            f"{self.verdict}: {self.contender}, {self.row.title}: {duration(self.old.median)} -> "
            f"{duration(self.new.median)}, {self.ratio:.2f} times, noise {self.noise:.1%}"
        )


@dataclass(frozen=True)
class Comparison:
    """Of two runs."""

    changes: tuple[Change, ...]
    #: Rows and contenders, as text, that only one of the runs has.
    gone: tuple[str, ...]
    added: tuple[str, ...]
    #: What is different about the machines, which makes times incomparable.
    machines: tuple[str, ...]
    margin: float

    def of(self, verdict: str) -> list[Change]:
        """The changes of this kind, the largest first."""
        found = [change for change in self.changes if change.verdict == verdict]
        return sorted(found, key=lambda change: max(change.ratio, 1 / change.ratio), reverse=True)

    @property
    def failed(self) -> bool:
        """Whether a row is slower; a comparison of nothing does not say that none is."""
        return not self.changes or bool(self.of("slower"))

    def __str__(self) -> str:
        slower, faster = self.of("slower"), self.of("faster")
        return "\n".join(
            [
                *(f"warning: another {difference}" for difference in self.machines),
                f"{len(self.changes)} times in both runs: {len(slower)} slower, {len(faster)} faster by more than "
                f"the noise and {self.margin:.0%}",
                *map(str, slower + faster),
                *(f"not measured this time: {name}" for name in self.gone),
            ]
        )


def compare(old: Results, new: Results, margin: float = MARGIN) -> Comparison:
    """Every time of our own backends that both runs have.

    A time's noise is its own in both runs, or what is usual in them where that is more.
    """
    before = {row.key: row for row in old.timed}
    changes, added = [], []
    for row in new.timed:
        for contender in _own(row):
            earlier = before.get(row.key)
            if earlier is None or contender not in earlier.figures:
                added.append(f"{contender}, {row.title}")
                continue
            figures = earlier.figures[contender], row.figures[contender]
            noise = max(figures[0].noise, old.noise) + max(figures[1].noise, new.noise)
            changes.append(Change(row, contender, *figures, noise, margin))
    measured = {(change.row.key, change.contender) for change in changes}
    gone = [
        f"{contender}, {row.title}"
        for row in old.timed
        for contender in _own(row)
        if (row.key, contender) not in measured
    ]
    return Comparison(tuple(changes), tuple(gone), tuple(added), tuple(_differences(old, new)), margin)


def _own(row: Row) -> list[str]:
    return [name for name in OWN if name in row.figures]


def _differences(old: Results, new: Results) -> list[str]:
    compared = ("processor", "instruction set", "governor", "clock", "system")
    return [
        f"{name}: {old.machine.get(name)} before, {new.machine.get(name)} now"
        for name in compared
        if old.machine.get(name) != new.machine.get(name)
    ]
