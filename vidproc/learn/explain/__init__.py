"""Explain an answer of a model: where, and when, it looked.

`gradcam` (Selvaraju et al. 2017) asks the network's own last feature maps. `occlusion` (Zeiler and Fergus 2014; for
boxes after Petsiuk et al. 2021, D-RISE) hides one place at one time after another and measures what the score loses, so
it works for any model, ONNX files and a user's own class included.
"""

from __future__ import annotations

from vidproc.learn.explain.explaining import explain
from vidproc.learn.explain.settings import ExplainSettings, Explanation

__all__ = ["ExplainSettings", "Explanation", "explain"]
