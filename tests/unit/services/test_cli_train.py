"""What `coe train` says of answers."""

import numpy as np
import pytest

from coe.routers.outcomes import write_outcomes
from coe.services.cli.train import run

WORDS = ("sing a song", "add the numbers")


@pytest.fixture
def trained(tmp_path, capsys):
    """Train on ``n`` train and 40 dev prompts whose first ``n_answered`` have answers."""

    def of(n, n_answered):
        rng = np.random.default_rng(4)
        rows = []
        for k in range(n + 40):
            right = rng.random(3) < 0.7
            row = {
                "prompt_id": f"p{k}",
                "prompt": f"{WORDS[k % 2]} {k}",
                "category": WORDS[k % 2],
                "split": "dev" if k < 40 else "train",
            }
            for name, good in zip("abc", right.tolist(), strict=True):
                said = "right" if good else f"wrong {rng.integers(5)}"
                answer = said if k < n_answered + 40 else None
                row |= {
                    f"score__{name}": float(good),
                    f"tokens__{name}": 4.0,
                    f"energy_j__{name}": 2.0,
                    f"answer__{name}": answer,
                }
            rows.append(row)
        write_outcomes(tmp_path / "outcomes.parquet", rows)
        run(tmp_path / "outcomes.parquet", tmp_path / "artefact", None, None, as_json=False)
        return capsys.readouterr().out

    return of


def test_modes_that_were_learned_are_told_with_what_they_score(trained):
    said = trained(220, 220)
    assert "modes of a, b, c, played on 220 prompts that all of them answered" in said
    assert "calibration error of the confidence" in said
    assert "vote of the best three, a + b + c: score" in said
    assert said.count(", 6 J") == 1
    assert "best mode at the joules of the best single" in said


def test_too_few_answers_are_told(trained):
    said = trained(220, 30)
    assert "answers of several experts to 30 prompts: too few to learn from together" in said
    assert "modes" not in said
