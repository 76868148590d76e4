"""The device that other tests compute on fails where CUDA would, and counts what it says."""

from __future__ import annotations

import pytest
import torch
from pretended_device import DEVICE, pretended_device


def test_numbers_there_are_those_of_the_cpu_to_the_last_bit():
    A = torch.rand(5, 3, dtype=torch.float64)
    with pretended_device():
        there = A.to(DEVICE)
        out = there.new_empty(5, 5)
        torch.mm(there, there.mT, out=out)[:2].mul_(2.0)
        values = torch.linalg.eigh(out + torch.eye(5, dtype=out.dtype, device=DEVICE))[0].cpu()
        assert there.device == DEVICE and out.device == DEVICE
    expected = A @ A.mT
    expected[:2] *= 2.0
    assert torch.equal(values, torch.linalg.eigh(expected + torch.eye(5))[0])


def test_gradients_reach_parameters_on_the_cpu():
    X, scale = torch.rand(4, 2, dtype=torch.float64), torch.ones(2, requires_grad=True)
    with pretended_device():
        (X.to(DEVICE) * scale.to(DEVICE)).square().sum().backward()
    assert scale.grad is not None and scale.grad.device.type == "cpu"
    torch.testing.assert_close(scale.grad, 2 * X.square().sum(0).to(torch.float32))


@pytest.mark.parametrize(
    "mixed",
    [
        lambda X: X + torch.ones(2),
        lambda X: torch.cat([X, torch.ones(1, 2)]),
        lambda X: X[torch.tensor([0, 1])],
        lambda X: torch.ones(3, 2).mul_(X),
        lambda X: torch.randn(3, generator=torch.Generator(), device=X.device),
    ],
)
def test_tensors_on_two_devices_are_refused(mixed):
    with pretended_device():
        X = torch.ones(3, 2).to(DEVICE)
        with pytest.raises(RuntimeError):
            mixed(X)


def test_numbers_of_no_dimension_may_come_from_the_cpu():
    with pretended_device():
        X = torch.ones(3).to(DEVICE)
        assert (X * torch.tensor(2.0)).tolist() == [2.0, 2.0, 2.0]


def test_numpy_wants_a_copy_first():
    with pretended_device():
        X = torch.ones(3).to(DEVICE)
        with pytest.raises(TypeError, match="cpu"):
            X.numpy()
        assert X.cpu().numpy().tolist() == [1.0, 1.0, 1.0]


def test_what_makes_the_host_wait_is_counted():
    with pretended_device() as device:
        X = torch.rand(8, 3, dtype=torch.float64).to(DEVICE)
        device.forget()
        Y = X @ X.mT + 1.0
        Y[:2] = 0.0
        assert device.waits == 0
        float(Y.sum())
        bool((Y > 0).all())
        assert (device.reads, device.downloads) == (2, [])
        Y[Y > 0.5]
        Y.nonzero()
        torch.linalg.eigh(Y)
        assert device.reads == 5
        Y.cpu()
        assert device.downloads == [64] and device.uploads == []
        torch.zeros(2, 2).to(DEVICE)
        assert device.uploads == [4]
