"""Whether a graph can be a detector, told without running it."""

from __future__ import annotations

import numpy as np

from vidproc.errors import ConfigError
from vidproc.models.onnx.files import graph_in, part_of
from vidproc.models.onnx.graph_file import holds_nan
from vidproc.models.onnx.input import GraphInput, example_size, is_identity
from vidproc.models.onnx.output import check_outputs
from vidproc.models.recipe import Recipe
from vidproc.models.weights import Weights

MAX_INPUT_BYTES = 1 << 31
"""Largest input of one pass that a graph may ask for: a fixed batch of 100 frames of 1280 x 1280 as float32 is less."""


def check(recipe: Recipe, weights: Weights) -> GraphInput:
    """What can be told without running the graph: one input that takes frames, outputs that its decoding knows,
    and no values that are not numbers. Raises ConfigError."""
    graph = graph_in(weights.path, weights.data)
    inside = graph.no_number or next(
        (t.name for t in graph.external if holds_nan(part_of(weights.beside[t.location], t), t.element)), None
    )
    if inside is not None:
        raise ConfigError(f"The weights {weights.path} are damaged: {inside} holds values that are not numbers.")
    taken = GraphInput(graph.inputs, weights.path)
    size = recipe.grid.size
    if size.mode in ("letterbox", "stretch", "crop") and not taken.accepts(size.height, size.width):
        raise ConfigError(
            f"{recipe.name}: the graph takes frames of {taken.height or 'any'}x{taken.width or 'any'} (height x width"
            f"{', equal' if taken.square else ''}), but the description or the settings say {size.height}x{size.width}."
        )
    height, width = example_size(size)
    if taken.bytes_of(height, width) > MAX_INPUT_BYTES:
        raise ConfigError(
            f"{weights.path}: one pass over {taken.batch or 1:,} frames of {height}x{width} would take "
            f"{taken.bytes_of(height, width):,} bytes. Export the graph for fewer or smaller frames."
        )
    p = recipe.preprocessing
    if taken.dtype == np.uint8 and not is_identity(p):
        raise ConfigError(
            f"{recipe.name}: the graph takes uint8, the frames as they are, so its preprocessing must be "
            "{divisor: 1} without mean and std."
        )
    check_outputs(recipe, graph.outputs, size.height, size.width)
    return taken
