"""CNN + LSTM, GRU, TCN and mean: causal, with a streaming form equal to the windowed one."""

from __future__ import annotations

from typing import cast, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vidproc.errors import ConfigError
from vidproc.models.temporal import (
    HeadName,
    Stream,
    TcnHead,
    TemporalClassifier,
    TemporalSettings,
    TorchvisionEncoder,
    receptive_field,
)

HEADS = get_args(HeadName)


def classifier(head: HeadName, **options: int) -> TemporalClassifier:
    torch.manual_seed(3)
    return TemporalClassifier(4, TemporalSettings(head=head, hidden=8, **options)).eval()  # type: ignore[arg-type]


def video(n: int, frames: int) -> Tensor:
    """(n, 3, frames, 32, 32): noise on a colour that changes with every frame."""
    return 3 * torch.randn(n, 3, frames, 1, 1) + torch.randn(n, 3, frames, 32, 32)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("layers", [1, 2])
def test_the_streaming_form_equals_the_windowed_after_every_frame(head: HeadName, layers: int) -> None:
    module, clips = classifier(head, layers=layers), video(2, 9)
    with torch.inference_mode():
        windowed = module.every_frame(clips)
    stream = Stream(module)
    for t in range(clips.shape[2]):
        torch.testing.assert_close(stream.push(clips[:, :, t]), windowed[:, t], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module(clips), windowed[:, -1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_no_output_depends_on_a_later_frame(head: HeadName) -> None:
    module, clips = classifier(head, layers=2), video(1, 8)
    changed = clips.clone()
    changed[:, :, 5:] = video(1, 3)
    with torch.inference_mode():
        a, b = module.every_frame(clips), module.every_frame(changed)
    torch.testing.assert_close(a[:, :5], b[:, :5], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(a[:, 5:], b[:, 5:], atol=1e-3)


@settings(max_examples=15, deadline=None)
@given(kernel=st.integers(2, 4), layers=st.integers(1, 4))
def test_the_receptive_field_is_what_is_stated(kernel: int, layers: int) -> None:
    torch.manual_seed(0)
    head = (
        TcnHead(2, 3, TemporalSettings(head="tcn", hidden=6, layers=layers, kernel=kernel, dropout=0)).eval().double()
    )
    for p in head.parameters():  # positive everywhere: nothing is cut off by a ReLU, so every path shows
        torch.nn.init.uniform_(p, 0.1, 1.0)
    field = head.receptive_field
    assert field == receptive_field(kernel, layers)
    x = torch.ones(1, field + 5, 2, dtype=torch.float64, requires_grad=True)
    head(x)[0, -1].sum().backward()
    assert x.grad is not None
    reached = x.grad[0].abs().sum(1) > 0
    assert reached[-field:].all() and not reached[:-field].any()


def test_a_tcn_forgets_what_lies_before_its_receptive_field() -> None:
    module = classifier("tcn", layers=2)
    field = cast(TcnHead, module.head).receptive_field
    clips = video(1, field + 6)
    stream = Stream(module)
    for t in range(clips.shape[2]):
        logits = stream.push(clips[:, :, t])
    with torch.inference_mode():
        torch.testing.assert_close(module(clips[:, :, -field:]), logits, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(module(clips[:, :, -field // 2 :]), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", ["lstm", "gru", "tcn"])
def test_order_matters_to_all_but_the_mean(head: HeadName) -> None:
    clips = video(1, 6)
    with torch.inference_mode():
        temporal, mean = classifier(head), classifier("mean")
        assert not torch.allclose(temporal(clips), temporal(clips.flip(2)), atol=1e-4)
        torch.testing.assert_close(mean(clips), mean(clips.flip(2)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "features"), [("resnet18", 512), ("mobilenet_v3_small", 1024), ("vit_b_32", 768)])
def test_a_torchvision_model_is_a_backbone(name: str, features: int) -> None:
    with torch.device("meta"):
        encoder = TorchvisionEncoder(name).eval()
        assert encoder(torch.zeros(2, 3, 224, 224)).shape == (2, features) == (2, encoder.features)


@pytest.mark.parametrize("name", ["resnet17", "fasterrcnn_resnet50_fpn", "squeezenet1_0"])
def test_what_is_no_backbone_fails_with_its_name(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        TemporalClassifier(2, TemporalSettings(backbone=name))


def test_bad_settings_fail() -> None:
    with pytest.raises(ConfigError, match="kernel from 2"):
        TemporalSettings(kernel=1)
    with pytest.raises(ConfigError, match="unknown head 'rnn'"):
        TemporalSettings(head="rnn")  # type: ignore[arg-type]
