"""The versions that a report of a fault should name, told without importing what they are of."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, files, version

from vidproc import __version__

PACKAGES = ("ray", "torch", "torchvision", "av", "onnxruntime", "duckdb", "deltalake", "pyarrow")
FFMPEG = ("avcodec", "avformat", "avutil", "swscale")
"""Libraries of FFmpeg, which the package `av` brings along."""


def versions() -> dict[str, str]:
    """Return name -> version, vidproc first."""
    found = {"vidproc": __version__, "python": f"{platform.python_version()} ({platform.platform()})"}
    return found | {name: _version(name) for name in PACKAGES} | _ffmpeg()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _ffmpeg() -> dict[str, str]:
    """Their versions stand in the names of the files: libavcodec-5e6b81c2.so.62.28.102, libavcodec.62.28.102.dylib."""
    try:
        names = [path.name for path in files("av") or ()]
    except PackageNotFoundError:
        return {}
    found = {}
    for library in FFMPEG:
        pattern = re.compile(rf"lib{library}[^.]*(?:\.so)?\.(\d+\.\d+\.\d+)(?:\.dylib)?")
        told = (match[1] for name in names if (match := pattern.fullmatch(name)))
        found[f"ffmpeg lib{library}"] = next(told, "not bundled")
    return found
