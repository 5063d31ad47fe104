"""How one model is loaded."""

from __future__ import annotations

from vidproc.checked import settings
from vidproc.secrets import refuse_credentials_within
from vidproc.settings import Kind, ModelOptions
from vidproc.storage.credentials import StorageOptions


@settings
class ModelSettings(ModelOptions):
    """How one model is loaded: what a job says about it, and where it runs."""

    kind: Kind | None = None
    """What the caller wants it for; refused where the model is something else."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    keyframes_only: bool = False
    """Look at keyframes and at no other frames."""
    storage: StorageOptions | None = None
    """How weights on S3 are reached; None: as the AWS environment says."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_credentials_within({"weights": self.weights, "options": dict(self.options)}, "")
