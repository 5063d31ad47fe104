"""What a job says of one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from vidproc.errors import ConfigError
from vidproc.secrets import refuse_credentials_within
from vidproc.storage.credentials import StorageOptions

Kind = Literal["detector", "actions", "embedding"]


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What a job says of one model. None leaves what the model itself says."""

    kind: Kind | None = None
    """What the caller wants it for; refused where the model is something else."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    half: bool = True
    """16-bit arithmetic on a GPU; a CPU always computes in float32."""
    batch_size: int | None = None
    """Frames (or windows) a forward pass; None: the family's choice for the device."""
    threads: int | None = None
    """CPU threads of one forward pass; None: OMP_NUM_THREADS, or all cores."""
    score_threshold: float | None = None
    max_detections: int = 100
    """A frame, the best by score."""
    nms_iou: float | None = None
    fps: Fraction | float | str | None = None
    window: int | None = None
    stride: int | None = None
    keyframes_only: bool = False
    size: tuple[int, int] | None = None
    """Height and width of the grid's frames."""
    weights: str | None = None
    """A file, https:// or s3:// in place of the model's own weights."""
    sha256: str | None = None
    """Of `weights`; a remote file needs it unless its name carries it, as torchvision's do."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the description (see Recipe) for an .onnx file or model folder, over what it says."""
    storage: StorageOptions | None = None
    """How weights on S3 are reached; None: as the AWS environment says."""

    def __post_init__(self) -> None:
        refuse_credentials_within({"weights": self.weights, "options": self.options}, "")
        for name in ("batch_size", "threads", "max_detections", "window", "stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} of a model must be at least 1, not {value}.")
        for name in ("score_threshold", "nms_iou"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} of a model must lie between 0 and 1, not {value}.")
        if self.fps is not None:
            object.__setattr__(self, "fps", parse_fps(self.fps, "a model's fps"))
        if self.size is not None:
            height, width = self.size
            if height < 1 or width < 1:
                raise ConfigError(f"size of a model must be positive (height, width), not {self.size}.")
            object.__setattr__(self, "size", (height, width))


def parse_fps(value: Any, what: str) -> Fraction:
    """Seven and a half a second may be written 7.5 or 15/2; 29.97 means 30000/1001 only if written so."""
    try:
        fps = Fraction(str(value)) if not isinstance(value, Fraction) else value
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"{what} must be a number such as 2, 7.5 or 30000/1001, not {value!r}.") from None
    if fps <= 0:
        raise ConfigError(f"{what} must be positive, not {value}.")
    return fps
