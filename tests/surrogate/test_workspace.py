import torch

from surrogate.workspace import Workspace


def test_the_same_name_and_shape_is_the_same_tensor():
    workspace = Workspace()
    first = workspace.buffer("a", 3, 4)
    assert first.shape == (3, 4) and first.dtype == torch.float64
    assert workspace.buffer("a", 3, 4) is first
    assert workspace.buffer("b", 3, 4).data_ptr() != first.data_ptr()


def test_a_smaller_shape_uses_the_front_of_the_memory_and_a_larger_one_gets_more():
    workspace = Workspace()
    memory = workspace.buffer("a", 3, 4).data_ptr()
    for shape in ((2, 5), (12,), (0, 7), (4, 3), (3, 4)):
        smaller = workspace.buffer("a", *shape)
        assert smaller.shape == shape and smaller.is_contiguous()
        assert smaller.untyped_storage().data_ptr() == memory
    larger = workspace.buffer("a", 5, 4).fill_(1.0)
    assert larger.shape == (5, 4)
    assert torch.equal(workspace.buffer("a", 2, 10), torch.ones(2, 10).double())


def test_another_dtype_gets_memory_of_its_own_size():
    workspace = Workspace()
    for dtype in (torch.float64, torch.float32, torch.float64):
        buffer = workspace.buffer("a", 3, 4, dtype=dtype).fill_(1.0)
        assert buffer.dtype == dtype
        assert torch.equal(buffer, torch.ones(3, 4, dtype=dtype))


def test_parts_have_workspaces_of_their_own():
    workspace = Workspace()
    first, second = workspace.child("first"), workspace.child("second")
    assert workspace.child("first") is first is not second
    places = {w.buffer("a", 2).data_ptr() for w in (workspace, first, second)}
    assert len(places) == 3
