"""Several ranked lists as one, in which each list has its share of every prefix."""

from __future__ import annotations

from collections.abc import Sequence

from serving.generators import Scored

WHOLE = 1_000_000
"""Shares are counted in millionths, so that no rounding moves a turn."""


def blend(lists: Sequence[Sequence[Scored]], shares: Sequence[float], wanted: int) -> list[Scored]:
    """Return the lists merged, each item once, each list in its order.

    While no list has ended, every prefix has the share of each list to within less than one place. The first list comes
    as early as this allows, so that of two lists the second one gets a place when its share of the prefix is another
    whole place. The place of an item that another list has brought goes to the next item of the same list. The share of
    a list that has ended goes to the first of those that last.

    >>> first, second = ([Scored(row, 0.0, "") for row in rows] for rows in (range(4), range(7, 9)))
    >>> [each.row for each in blend([first, second], [0.75, 0.25], wanted=6)]
    [0, 1, 2, 7, 3, 8]

    Args:
        shares: of each list, at most 1 together; the first list has what the others leave, whatever its own share says.
    """
    turns, queues = _Turns(shares), [iter(each) for each in lists]
    blended: list[Scored] = []
    taken: set[int] = set()
    for at, each in enumerate(lists):
        if not each:
            turns.end(at)
    while len(blended) < wanted and turns.lasting:
        turn = turns.of(len(blended) + 1)
        for found in queues[turn]:
            if found.row not in taken:
                turns.take(turn)
                taken.add(found.row)
                blended.append(found)
                break
        else:
            turns.end(turn)
    return blended


class _Turns:
    """Whose place is next.

    The first list gets a place as soon as it has fewer than its share of the prefix with this place. Of the others that
    have fewer, the one gets the place whose share of a prefix will be a whole place more the soonest. This is earliest
    deadline first, and keeps each list within less than one place of its share (G. Steiner and J. S. Yeomans, "Level
    Schedules for Mixed-Model, Just-in-Time Processes", Management Science 39(6), 1993).

    Attributes:
        lasting: lists that have not ended, in order.
    """

    def __init__(self, shares: Sequence[float]) -> None:
        others = [round(share * WHOLE) for share in shares[1:]]
        self._shares = [WHOLE - sum(others), *others]
        self._taken = [0] * len(self._shares)
        self.lasting = list(range(len(self._shares)))

    def of(self, place: int) -> int:
        """Return the list that gets a place, the first of which is 1."""
        first, shares, taken = self.lasting[0], self._shares, self._taken
        if shares[first] * place > taken[first] * WHOLE:
            return first
        due = [each for each in self.lasting[1:] if shares[each] * place > taken[each] * WHOLE]
        return due[0] if len(due) == 1 else min(due, key=self._deadline)

    def take(self, turn: int) -> None:
        """Note that a list has got a place."""
        self._taken[turn] += 1

    def end(self, turn: int) -> None:
        """Give the share of a list that has ended, with the places that it got, to the first of those that last."""
        self.lasting.remove(turn)
        for heir in self.lasting[:1]:
            self._shares[heir] += self._shares[turn]
            self._taken[heir] += self._taken[turn]

    def _deadline(self, turn: int) -> int:
        """Return the length of the first prefix of which a list's share is at least one place more than it has."""
        return -(-(self._taken[turn] + 1) * WHOLE // self._shares[turn])
