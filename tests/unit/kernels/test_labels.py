"""Labels that nothing dominates, against comparing all with all."""

import numpy as np
import pytest

from coe.kernels.labels import thinned, undominated


def dominated(usage, values, i):
    """Whether another label is as good in everything, and better in something or earlier."""
    for j in range(values.size):
        as_good = np.all(usage[:, j] <= usage[:, i]) and values[j] >= values[i]
        equal = np.all(usage[:, j] == usage[:, i]) and values[j] == values[i]
        if j != i and as_good and (not equal or j < i):
            return True
    return False


@pytest.mark.parametrize("n_resources", [0, 1, 2])
def test_what_is_left_is_what_no_other_label_makes_superfluous(n_resources):
    rng = np.random.default_rng(1)
    for _ in range(300):
        n = int(rng.integers(0, 12))
        usage = rng.integers(0, 4, (n_resources, n)).astype(float)
        values = rng.choice([-np.inf, 0.0, 1.0, 2.0, 3.0], n)
        kept = undominated(usage, values)
        assert set(kept) == {i for i in range(n) if not dominated(usage, values, i)}
        order = [(*usage[:, i], -values[i]) for i in kept]
        assert order == sorted(order)


def test_thinning_keeps_the_best_and_the_first():
    rng = np.random.default_rng(2)
    for _ in range(100):
        bounds = rng.random(int(rng.integers(1, 40)))
        most = int(rng.integers(2, 20))
        kept = thinned(bounds, most)
        assert 0 < kept.size <= most or kept.size == bounds.size
        assert {0, int(bounds.argmax())} <= {*kept.tolist()}
        assert np.all(np.diff(kept) > 0)
