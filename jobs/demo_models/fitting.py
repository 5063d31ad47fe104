"""Training of one network: AdamW with a cosine schedule, and the running average of the weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidproc.text import say


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm-up over the first 5 %, then half a cosine down to zero."""
    warm = max(1, steps // 20)
    if step < warm:
        return peak * (step + 1) / warm
    return float(0.5 * peak * (1 + np.cos(np.pi * (step - warm) / max(1, steps - warm))))


def fit(
    name: str,
    network: nn.Module,
    batches: Iterator[tuple[Tensor, Any]],
    loss_of: Callable[[Any, Any], Tensor],
    steps: int,
    peak: float,
) -> nn.Module:
    """AdamW with a cosine schedule; gives back the running average of the weights."""
    fast = bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = deepcopy(network).requires_grad_(False)
    decay, plain = [], []
    for p in network.parameters():
        (decay if p.ndim > 1 else plain).append(p)
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}])
    network.train()
    started, seen = time.perf_counter(), 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        inputs, targets = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            outputs = network(inputs)
        loss = loss_of(outputs, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        keep = min(0.995, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(now, 1 - keep)
                else:
                    mean.copy_(now)
        seen = float(loss.detach()) if step == 0 else 0.98 * seen + 0.02 * float(loss.detach())
        if (step + 1) % 100 == 0 or step + 1 == steps:
            say(f"{name} step {step + 1}/{steps} loss {seen:.4f} {time.perf_counter() - started:.0f} s")
    return average.eval()
