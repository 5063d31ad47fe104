"""An onnxruntime session on the device that was asked for."""

from __future__ import annotations

import os
from typing import Any

from vidproc.errors import ConfigError
from vidproc.machine import cpu_count
from vidproc.models.settings import ModelSettings
from vidproc.models.weights import Weights


def open_session(weights: Weights, settings: ModelSettings) -> Any:
    """An onnxruntime session on the device that the settings ask for, made of the bytes that were verified."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    # onnxruntime takes every core unless told, also of those beyond a container's quota; the scheduler's share arrives
    # as OMP_NUM_THREADS.
    options.intra_op_num_threads = settings.threads or int(os.environ.get("OMP_NUM_THREADS") or cpu_count())
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.load_model_format", "ONNX")  # never guessed from the bytes
    if weights.beside:
        names, files = zip(*weights.beside.items(), strict=True)
        options.add_external_initializers_from_files_in_memory(list(names), list(files), [len(f) for f in files])
    providers = _providers(settings.device)
    try:
        session = ort.InferenceSession(weights.data, options, providers=providers, enable_fallback=0)
    except Exception as e:  # onnxruntime's exceptions share no base class
        raise ConfigError(
            f"The model {weights.path} cannot be opened by onnxruntime: {' '.join(str(e).split())[:300]}"
        ) from e
    # Where CUDA's libraries are missing or of another version, onnxruntime says so on stderr and takes the CPU.
    if settings.device.startswith("cuda") and session.get_providers()[0] == "CPUExecutionProvider":
        raise ConfigError(f"{settings.device} was asked for, but onnxruntime could not start CUDA on it.")
    return session


def _providers(device: str) -> list[Any]:
    import onnxruntime as ort

    cuda = "CUDAExecutionProvider" in ort.get_available_providers()
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or not (number or "0").isdigit():
        raise ConfigError(f"The device must be auto, cpu, cuda or cuda:N, not {device!r}.")
    if kind == "cuda" and not cuda:
        raise ConfigError(f"{device} was asked for, but this onnxruntime has no CUDA: install onnxruntime-gpu instead.")
    if kind == "cpu" or not cuda:
        return ["CPUExecutionProvider"]
    return [("CUDAExecutionProvider", {"device_id": int(number or 0)}), "CPUExecutionProvider"]
