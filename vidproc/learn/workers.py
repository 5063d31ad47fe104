"""Where training runs: here and now, or on the workers of Ray Train. The loop itself knows only a World."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, cast

import torch
from torch import nn

from vidproc.errors import ConfigError, TransientError, VidprocError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """Where training runs."""

    executor: Literal["ray", "inline"] = "ray"
    """`inline`: in this process, without Ray, for one worker."""
    workers: int = 1
    """Copies of the network that share each step's examples (DistributedDataParallel)."""
    gpu: bool | None = None
    """Give each worker a GPU. By default where there is one."""
    cpus: float = 1.0
    """CPUs of each worker, for the scheduler; also its torch threads."""
    address: str | None = None
    """Address of a Ray cluster. By default RAY_ADDRESS where it is set, else a Ray of our own. `local`: always that."""

    def __post_init__(self) -> None:
        if self.workers < 1 or self.cpus <= 0:
            raise ConfigError(f"workers and cpus must be positive: {self}")
        if self.executor not in ("ray", "inline"):
            raise ConfigError(f"the executor must be ray or inline, not {self.executor!r}")
        if self.executor == "inline" and self.workers > 1:
            raise ConfigError("the inline executor has one worker; several need executor: ray")


class World(Protocol):
    """One worker's view of all of them."""

    rank: int
    size: int
    device: torch.device

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network on the device, its gradients averaged over the workers."""

    def gather(self, value: T) -> list[T]:
        """The values of all workers, by rank, on every worker."""

    def report(self, metrics: dict[str, float]) -> None:
        """One epoch ended."""


class Alone:
    """One worker, this process."""

    rank, size = 0, 1

    def __init__(self, gpu: bool | None, listen: Callable[[dict[str, float]], None] | None = None) -> None:
        if gpu and not torch.cuda.is_available():
            raise ConfigError("gpu: true, but this machine has no GPU that torch can use")
        self.device = torch.device("cuda:0" if gpu is not False and torch.cuda.is_available() else "cpu")
        self._listen = listen

    def wrap(self, network: nn.Module) -> nn.Module:
        return network.to(self.device)

    def gather(self, value: T) -> list[T]:
        return [value]

    def report(self, metrics: dict[str, float]) -> None:
        if self._listen is not None:
            self._listen(metrics)


class RayTrainWorld:
    """A worker of a Ray TorchTrainer, which has set torch.distributed up."""

    def __init__(self) -> None:
        import ray.train
        import ray.train.torch

        context = ray.train.get_context()
        self.rank, self.size = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()

    def wrap(self, network: nn.Module) -> nn.Module:
        network = network.to(self.device)
        if self.size == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        # Frozen layers and losses that some batches lack (no box in view) leave parameters without gradient.
        return nn.parallel.DistributedDataParallel(network, device_ids=devices, find_unused_parameters=True)

    def gather(self, value: T) -> list[T]:
        if self.size == 1:
            return [value]
        out: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(out, value)
        return out

    def report(self, metrics: dict[str, float]) -> None:
        import ray.train

        ray.train.report(metrics)


def run_workers(
    loop: Callable[[World], None],
    settings: WorkerSettings,
    *,
    name: str,
    listen: Callable[[dict[str, float]], None] | None = None,
) -> None:
    """Runs `loop` once on every worker, to its end. Errors of ours come back as they were raised;
    a lost worker is a TransientError, since the same command goes on from the last checkpoint."""
    if settings.executor == "inline":
        loop(Alone(settings.gpu, listen))
        return
    import tempfile
    import warnings

    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from vidproc.runtime.ray.own_ray import join_or_start

    join_or_start(settings.address)
    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpu = settings.gpu if settings.gpu is not None else have.get("GPU", 0) >= settings.workers
    needed = {"CPU": settings.cpus * settings.workers, "GPU": float(settings.workers if gpu else 0)}
    for what, amount in needed.items():
        if have.get(what, 0) < amount:
            raise ConfigError(
                f"{settings.workers} training workers need {amount:g} {what}, the cluster has {have.get(what, 0):g}"
            )
    threads = max(1, int(settings.cpus))

    def on_worker() -> None:
        torch.set_num_threads(threads)
        try:
            loop(RayTrainWorld())
        except VidprocError as e:
            raise RuntimeError(f"{_MARK}{type(e).__name__}: {e}") from e  # the trainer re-raises only text

    with tempfile.TemporaryDirectory(prefix="vidproc-train-") as folder:
        # Ray's own checkpoints are not used: ours lie beside the model, in a folder or on S3.
        trainer = TorchTrainer(
            on_worker,
            scaling_config=ScalingConfig(
                num_workers=settings.workers,
                use_gpu=gpu,
                resources_per_worker={"CPU": settings.cpus} | ({"GPU": 1} if gpu else {}),
            ),
            run_config=RunConfig(name=name, storage_path=folder),
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Ray's, of parts of itself
                trainer.fit()
        except Exception as e:
            raise _translated(e) from e


_MARK = "vidproc error "


def _translated(error: BaseException) -> Exception:
    import vidproc.errors

    text = "\n".join(_texts(error))
    if _MARK in text:
        kind, _, message = text.rpartition(_MARK)[2].partition(": ")
        return cast(Exception, getattr(vidproc.errors, kind, VidprocError)(message.splitlines()[0]))
    last = [line for line in text.splitlines() if line.strip()]
    return TransientError(f"a training worker failed ({last[-1].strip() if last else error!r}); run the command again")


def _texts(error: BaseException | None) -> list[str]:
    out = []
    while error is not None:
        out.append(str(error))
        for failure in (getattr(error, "worker_failures", None) or {}).values():
            out.append(str(failure))
        error = error.__cause__
    return out
