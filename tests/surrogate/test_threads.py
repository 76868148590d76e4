import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from surrogate import one_thread


@pytest.fixture(autouse=True)
def three_threads(one_core):
    torch.set_num_threads(3)


def test_there_is_one_thread_inside_and_the_former_count_after():
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


def test_the_count_is_restored_when_the_work_raises():
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == 3
    with one_thread():
        with pytest.raises(KeyError), one_thread():
            raise KeyError
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


def test_an_inner_scope_does_not_end_the_outer_one():
    with one_thread():
        with one_thread():
            pass
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


def test_a_function_can_be_decorated_with_it():
    @one_thread()
    def count() -> int:
        return torch.get_num_threads()

    assert [count(), count()] == [1, 1]
    assert torch.get_num_threads() == 3


def test_a_count_changed_between_two_scopes_is_the_one_restored():
    with one_thread():
        pass
    torch.set_num_threads(2)
    with one_thread():
        pass
    assert torch.get_num_threads() == 2


def test_scopes_that_overlap_in_two_python_threads_each_restore_the_count():
    opened, closed = threading.Event(), threading.Event()
    seen = []

    def other() -> None:
        with one_thread():
            opened.set()
            closed.wait(10)
            seen.append(torch.get_num_threads())
        seen.append(torch.get_num_threads())

    worker = threading.Thread(target=other)
    with one_thread():
        worker.start()
        assert opened.wait(10)
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3  # though the other is still inside
    closed.set()
    worker.join()
    assert seen == [1, 3]


def test_a_scope_that_ends_elsewhere_leaves_ours_at_one():
    def brief() -> None:
        with one_thread():
            pass

    with one_thread():
        worker = threading.Thread(target=brief)
        worker.start()
        worker.join()
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


def test_many_scopes_in_many_python_threads_leave_the_count_as_it_was():
    def work(i: int) -> int:
        with one_thread(), one_thread():
            torch.ones(4, 4) @ torch.ones(4, 4)
            return torch.get_num_threads()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(200))) == {1}
        after = set(pool.map(lambda i: torch.get_num_threads(), range(20)))
    assert after == {3}
    assert torch.get_num_threads() == 3
    new = []
    worker = threading.Thread(target=lambda: new.append(torch.get_num_threads()))
    worker.start()
    worker.join()
    assert new == [3]
