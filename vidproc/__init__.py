"""vidproc turns large video archives into tables that people can query.

    import vidproc
    vidproc.index("s3://cameras/2026", "s3://lake/cameras", detector="yolox-nano.onnx", fps=2)
    lake = vidproc.open("s3://lake/cameras")
    lake.sql("SELECT label, count(*) FROM detections GROUP BY 1").df()

What stands in `__all__` is the API. Importing it stays light: torch, ray and the codec are imported where they are
used, and reading a lake never imports them.
"""

from __future__ import annotations

from vidproc.api.jobs import index, plan
from vidproc.api.lakes import Lake, open
from vidproc.api.networks import Model, load_model
from vidproc.api.relations import Hits, Relation
from vidproc.errors import ConfigError, RunAborted, TransientError, VidprocError

__version__ = "0.2.0"

__all__ = [
    "ConfigError",
    "Hits",
    "Lake",
    "Model",
    "Relation",
    "RunAborted",
    "TransientError",
    "VidprocError",
    "__version__",
    "index",
    "load_model",
    "open",
    "plan",
]
