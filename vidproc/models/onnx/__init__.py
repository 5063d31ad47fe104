"""Detectors as ONNX files, run by onnxruntime; torch is not needed.

Decodings (what the graph's outputs mean):

  yolox          one output (n, cells, 5 + classes) of anchor-free cells at strides 8, 16 and 32,
                 objectness and classes already sigmoid (YOLOX, arXiv 2107.08430, exported without
                 its decoding). Frames: letterbox, BGR, 0 to 255.
  nms-in-graph   outputs boxes (n, m, 4), scores (n, m), labels (n, m), and perhaps count (n,),
                 already suppressed. Frames: stretch, RGB, 0 to 1, unless the description says else.

The graph has one input, a batch of frames as float32, float16 or uint8. A graph that takes uint8 gets the
frames' own bytes. Tensors may lie in other files beside the graph or below its folder (external data): they
are read with it, count in its sha256, and onnxruntime gets them from memory and opens no file.
"""

from __future__ import annotations

from vidproc.models.onnx.checks import check
from vidproc.models.onnx.description import completed
from vidproc.models.onnx.detector import OnnxDetector, load
from vidproc.models.onnx.files import read

__all__ = ["OnnxDetector", "check", "completed", "load", "read"]
