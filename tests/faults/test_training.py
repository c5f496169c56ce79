"""Training that comes to nothing: a loss that is no number, data that cannot be read, code that raises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fleet import SCHEMA, LinearLearner
from lives import Lives

from laconic.edge_sdk.learner import Trained


class Failing(LinearLearner):
    """Fails the first two times."""

    times = 0

    def train(self, *arguments: Any, **more: Any) -> Trained:
        self.times += 1
        if self.times <= 2:
            return self.fail()
        return super().train(*arguments, **more)

    def fail(self) -> Trained:
        raise NotImplementedError


class Diverging(Failing):
    def fail(self) -> Trained:
        return Trained(np.full(SCHEMA.size, np.nan, np.float32), self.rows, 1.0, float("nan"))


class Unreadable(Failing):
    def fail(self) -> Trained:
        raise OSError("the camera is gone")


class Greedy(Failing):
    def fail(self) -> Trained:
        raise MemoryError


@pytest.mark.parametrize(
    ("kind", "why", "said"),
    [
        (Diverging, "failed", "NonFinite"),
        (Unreadable, "failed", "OSError: the camera is gone"),
        (Greedy, "memory", "MemoryError"),
    ],
)
def test_it_is_said_answered_and_forgotten(kind: type[Failing], why: str, said: str, tmp_path: Any) -> None:
    lives = Lives(tmp_path / "d.db", kind(0))

    async def scene() -> None:
        await lives.more("committed")
        assert [n.fields["why"] for n in lives.heard("skipped")] == [why, why]
        assert all(str(n.fields["why"]).startswith(said) for n in lives.heard("failed"))
        assert lives.engine is not None
        assert np.isfinite(lives.engine.model.weights).all()

    lives.play(scene)
