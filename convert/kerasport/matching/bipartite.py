"""Two matchings of a bipartite graph: one of as many pairs as there can be, and the best one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["augment", "best"]


def augment(unit: int, options: Sequence[Sequence[int]], mates: dict[int, int]) -> bool:
    """One step of a maximum matching, without recursion: a path to a free module, and back."""
    came: dict[int, int] = {}
    queue = [unit]
    for current in queue:
        for module in options[current]:
            if module in came:
                continue
            came[module] = current
            if module not in mates:
                while True:
                    owner = came[module]
                    previous = next((m for m, u in mates.items() if u == owner), None)
                    mates[module] = owner
                    if previous is None or owner == unit:
                        return True
                    module = previous
            queue.append(mates[module])
    return False


def best(scores: npt.NDArray[np.float64]) -> list[int]:
    """The column of each row in the assignment of the largest sum (Kuhn and Munkres).

    >>> best(np.array([[1.0, 2.0], [5.0, 9.0]]))
    [0, 1]
    """
    rows, columns = scores.shape
    finite = scores[np.isfinite(scores)]
    worst = -1e6 - 1e3 * (np.abs(finite).max() if finite.size else 1.0)
    cost = -np.where(np.isfinite(scores), scores, worst)
    cost = np.pad(cost, ((1, 0), (1, 0)))
    row_price, column_price = np.zeros(rows + 1), np.zeros(columns + 1)
    owner = np.zeros(columns + 1, int)
    way = np.zeros(columns + 1, int)
    for row in range(1, rows + 1):
        owner[0], current = row, 0
        least = np.full(columns + 1, np.inf)
        used = np.zeros(columns + 1, bool)
        while owner[current]:
            used[current] = True
            reduced = cost[owner[current]] - row_price[owner[current]] - column_price
            better = ~used & (reduced < least)
            least[better], way[better] = reduced[better], current
            free = np.where(used, np.inf, least)
            free[0] = np.inf
            after = int(np.argmin(free))
            delta = free[after]
            row_price[owner[used]] += delta
            column_price[used] -= delta
            least[~used] -= delta
            current = after
        while current:
            owner[current], current = owner[way[current]], int(way[current])
    found = [0] * rows
    for column in range(1, columns + 1):
        if owner[column]:
            found[owner[column] - 1] = column - 1
    return found
