"""A graph and the files of its external data, read and verified."""

from __future__ import annotations

import zipfile
from pathlib import Path

from vidproc.errors import ConfigError
from vidproc.models.files import read_below
from vidproc.models.foreign import (
    FOREIGN,
    TORCH_WEIGHTS,
    foreign_format,
    foreign_zip,
    is_pickle,
    is_zip,
    refuse_foreign,
)
from vidproc.models.onnx.graph_file import ExternalTensor, GraphFile, NoGraph, read_graph
from vidproc.models.recipe import Recipe
from vidproc.models.weights import Weights, read_weights


def read(recipe: Recipe) -> Weights:
    """The graph and its external data. Raises ConfigError."""
    return read_weights(recipe.weights, recipe.sha256, model=recipe.name, beside=external_data)


def external_data(path: Path, data: bytes) -> dict[str, bytes]:
    """The files that the graph names for its tensors, by the names under which it asks for them."""
    graph = graph_in(path, data)
    beside: dict[str, bytes] = {}
    for tensor in graph.external:
        if tensor.location not in beside:
            beside[tensor.location] = read_below(
                path.parent, tensor.location, where=f"The graph {path}", what="file of external data"
            )
        if (tensor.length or 0) + tensor.offset > len(beside[tensor.location]):
            raise ConfigError(
                f"The graph {path}: its external data {tensor.location!r} is cut short: {tensor.name} lies beyond its "
                f"{len(beside[tensor.location]):,} bytes."
            )
    return beside


def part_of(data: bytes, tensor: ExternalTensor) -> memoryview:
    end = None if tensor.length is None else tensor.offset + tensor.length
    return memoryview(data)[tensor.offset : end]


def graph_in(path: Path, data: bytes) -> GraphFile:
    refuse_foreign(path, foreign_format(data))
    if is_zip(data):
        try:
            refuse_foreign(path, foreign_zip(data) or TORCH_WEIGHTS)
        except zipfile.BadZipFile:
            refuse_foreign(path, TORCH_WEIGHTS)
    if is_pickle(data):
        refuse_foreign(path, FOREIGN[".pkl"])
    try:
        return read_graph(data)
    except NoGraph as e:
        raise ConfigError(
            f"The model {path} cannot be opened by onnxruntime: it is damaged or not an ONNX file ({e})."
        ) from e
