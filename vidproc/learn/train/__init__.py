"""Train a detector or an action model.

Read `loop.training_loop` first: it is the five steps from data to a model. `settings` says what a job may set,
`preparation` checks everything that can be found wrong before training starts, `examples` makes batches, `checkpoint`
and `folder` write.

Everything follows from the job and its seed. After each epoch a checkpoint lies beside the model; the same command goes
on from there, and ends where an unbroken run would have ended.
"""

from __future__ import annotations

from vidproc.learn.train.settings import DataSettings, OptimisationSettings, TrainSettings
from vidproc.learn.train.training import TrainReport, train

__all__ = ["DataSettings", "OptimisationSettings", "TrainReport", "TrainSettings", "train"]
