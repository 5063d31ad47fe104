"""What a graph gives, and whether its decoding knows it."""

from __future__ import annotations

from collections.abc import Sequence

from vidproc.errors import ConfigError
from vidproc.models.onnx.decoding import yolox_cells
from vidproc.models.onnx.graph_file import GraphValue
from vidproc.models.recipe import Recipe

DECODINGS = ("yolox", "nms-in-graph")
_FLOAT_OUTPUTS = {"float16", "float32", "float64"}
_WHOLE_OUTPUTS = {"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"}


def check_outputs(recipe: Recipe, outputs: Sequence[GraphValue], height: int, width: int) -> None:
    """By what the graph declares; sizes that it leaves open show when it runs."""
    by_name = {o.name: o for o in outputs}
    wanted = [by_name[name] for name in output_names(recipe, list(by_name))]
    for number, output in enumerate(wanted):
        known = _FLOAT_OUTPUTS if number < 2 else _FLOAT_OUTPUTS | _WHOLE_OUTPUTS
        if output.element not in known:
            raise ConfigError(
                f"{recipe.name}: the graph's output is {output}; {recipe.decoding} needs numbers "
                f"({', '.join(sorted(known))}) there. Export it again, or put a Cast behind."
            )
    if recipe.decoding == "yolox":
        if not wanted:
            raise ConfigError(f"{recipe.name}: the graph has no output.")
        shape, classes = wanted[0].shape, max(recipe.outputs_of_labels, default=len(recipe.labels) - 1) + 1
        cells = len(yolox_cells(height, width)[0]) if recipe.grid.size.mode in ("letterbox", "stretch", "crop") else -1
        needed = (cells, 5 + classes)
        fixed = [s if isinstance(s, int) and s > 0 else -1 for s in shape or ()]
        fits = len(fixed) == 3 and all(-1 in pair or pair[0] == pair[1] for pair in zip(fixed[1:], needed, strict=True))
        if shape is not None and not fits:
            raise ConfigError(
                f"{recipe.name}: the graph's output is {shape[1:]}, but yolox decoding of {height}x{width} frames "
                f"with {classes} classes needs {needed}."
            )


def output_names(recipe: Recipe, present: list[str]) -> list[str]:
    if recipe.decoding == "yolox":
        return present[:1]
    wanted = {"boxes": "boxes", "scores": "scores", "labels": "labels", **recipe.outputs}
    unknown = set(wanted) - {"boxes", "scores", "labels", "count"}
    absent = [name for name in wanted.values() if name not in present]
    if unknown or absent:
        raise ConfigError(
            f"{recipe.name}: the graph has the outputs {', '.join(present)}; say which is what, as in "
            "'outputs: {boxes: ..., scores: ..., labels: ..., count: ...}' (count if there is one)."
        )
    return [wanted[key] for key in ("boxes", "scores", "labels", "count") if key in wanted]
