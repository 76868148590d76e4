"""Facts about opening a study for a device, and about devices that fail."""

import pytest
import torch
from pretended_device import DEVICE, pretended_device

from bbmmopt import DeviceError, Optimizer, Real, Study, maximize, minimize
from bbmmopt.devices import told_apart, usable
from bbmmopt.modelling import model as modelling
from tests.bbmmopt.device_cases import opened
from tests.bbmmopt.loops import PLANE, branin
from tests.bbmmopt.shell import create, line, refused

LINE = {"x": Real(0, 1)}


# --------------------------------------------------------------------------------------
# Opening
# --------------------------------------------------------------------------------------


def test_a_study_goes_on_where_it_is_opened(tmp_path):
    where = tmp_path / "study.db"
    with opened("exact", storage=where) as optimizer:
        expected = optimizer.preview()
        assert (optimizer.device, "on" in repr(optimizer)) == (torch.device("cpu"), False)
        assert "computed on" not in optimizer.explain(optimizer.ask())
        optimizer.tell(7, failed="a stop")
    with opened("exact") as whole:
        whole.tell(whole.ask(), failed="a stop")
        after = whole.preview()
    with pretended_device(), Optimizer.open(where, device=DEVICE) as optimizer:
        assert repr(optimizer).endswith("study 'default', on meta)")
        trial = optimizer.ask()
        assert trial.params == pytest.approx(after.params, rel=1e-9) != expected.params
        assert optimizer.explain(trial).endswith("It was computed on meta.")
    with Optimizer.open(where) as optimizer:
        assert optimizer.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("nonsense", "device 'nonsense' cannot be used: Expected one of cpu, cuda"),
        ("meta", "device 'meta' cannot be used: Cannot copy out of meta tensor; no data!. torch"),
        ("privateuseone", "device 'privateuseone' cannot be used"),
        ("cpu:x", "device 'cpu:x' cannot be used"),
    ],
)
def test_a_device_that_cannot_be_used_is_refused_before_anything_is_stored(
    device, message, tmp_path
):
    where = tmp_path / "study.db"
    with pytest.raises(ValueError, match="cannot be used") as refusal:
        Optimizer(LINE, minimize="f", storage=where, device=device)
    assert str(refusal.value).startswith(message)
    assert 'Pass one of these, or "auto"' in str(refusal.value) and not where.exists()
    with pytest.raises(ValueError, match="cannot be used"):
        minimize(lambda x: x, LINE, n_trials=1, storage=where, device=device, progress=False)
    assert not where.exists()


def test_a_build_of_torch_without_a_device_is_told(monkeypatch):
    def built(*_, device, **__):
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch, "ones", built)
    with pytest.raises(
        ValueError, match=r"'cuda' cannot be used: Torch not compiled .* finds: cpu"
    ):
        usable("cuda")


@pytest.mark.parametrize("device", [None, 0, 1.0, ["cpu"]])
def test_a_device_has_a_name(device):
    with pytest.raises(TypeError, match='device must be a string such as "cpu"'):
        Optimizer(LINE, minimize="f", device=device)


@pytest.mark.parametrize(("there", "name"), [(False, "cpu"), (True, "cuda")])
def test_auto_takes_a_gpu_where_there_is_one(there, name, monkeypatch):
    asked_for = []

    def ones(*size, device, dtype):
        asked_for.append(device)
        return torch.zeros(*size, dtype=dtype)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch, "ones", ones)
    usable("auto")
    assert asked_for == [name]


def test_minimize_and_maximize_take_a_device():
    expected = minimize(branin, PLANE, n_trials=7, n_start=5, seed=0, progress=False)
    with pretended_device() as device:
        found = minimize(
            branin, PLANE, n_trials=7, n_start=5, seed=0, progress=False, device=DEVICE
        )
        assert device.calls
        last = found.trials[-1].params
        maximize(branin, PLANE, n_trials=1, progress=False, device=DEVICE).optimizer.close()
    assert last == pytest.approx(expected.trials[-1].params, rel=1e-9)


@pytest.mark.usefixtures("in_an_empty_directory")
def test_the_command_line_asks_on_a_device():
    create()
    assert line("ask", "study.db", "--device", "cpu")["number"] == 0
    with pretended_device():
        assert line("ask", "study.db", "--device", "meta")["number"] == 1
    assert "device 'meta' cannot be used" in refused(2, "ask", "study.db", "--device", "meta")
    with Study.open("study.db") as study:
        assert len(study.trials) == 2


# --------------------------------------------------------------------------------------
# Failing
# --------------------------------------------------------------------------------------

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …"
FAILURES = [
    (torch.AcceleratorError("an illegal memory access was encountered"), "was lost while"),
    (RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors"), "was lost while"),
    (RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasDgemm`"), "was lost while"),
    (RuntimeError("Triton Error [CUDA]: device not ready"), "was lost while"),
    (torch.OutOfMemoryError(FULL), "ran out of memory while"),
    (RuntimeError("Triton Error [CUDA]: out of memory"), "ran out of memory while"),
]


def failing(monkeypatch, error: Exception) -> None:
    """From now on fits end with this error."""

    def fit(*_, **__):
        raise error

    monkeypatch.setattr(modelling, "fit", fit)


CALLS = ["preview", "recommend", "remaining_improvement", "beliefs", "belief", "acquisition"]


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [*((*failure, "ask") for failure in FAILURES), *((*FAILURES[0], call) for call in CALLS)],
)
def test_a_device_that_fails_takes_nothing_along_that_was_told(
    error, message, call, tmp_path, monkeypatch
):
    where = tmp_path / "study.db"
    with opened("exact") as whole:
        expected = whole.ask()
    with pretended_device(), opened("exact", storage=where, device=DEVICE) as optimizer:
        told = optimizer.trials
        with monkeypatch.context() as patch:
            failing(patch, error)
            with pytest.raises(DeviceError, match=message) as failure:
                getattr(optimizer, call)()
        assert failure.value.__cause__ is error
        for part in ("meta", "Nothing that was told is lost", 'device="cpu"'):
            assert part in str(failure.value)
        assert str(error).splitlines()[0].rstrip(".") in str(failure.value)
        assert optimizer.trials == told
        optimizer.add_trial({"x": 0.0, "y": 0.0}, 3.0)  # for which no device is needed
    with Optimizer.open(where) as optimizer:
        assert [trial.values for trial in optimizer.trials] == [
            *(trial.values for trial in told),
            {"f": 3.0},
        ]
        assert optimizer.preview().params != expected.params
    with Optimizer.open(where) as first, Optimizer.open(where) as second:
        assert first.preview() == second.preview()


def test_after_a_failure_the_same_is_suggested_as_without(tmp_path, monkeypatch):
    where = tmp_path / "study.db"
    with opened("exact") as whole:
        trials = [whole.ask() for _ in range(2)]
    with pretended_device(), opened("exact", storage=where, device=DEVICE) as optimizer:
        first = optimizer.ask()
        with monkeypatch.context() as patch:
            failing(patch, FAILURES[0][0])
            optimizer.tell(first, 1.0)
            with pytest.raises(DeviceError):
                optimizer.ask()
    whole.tell(trials[0], 1.0)
    with Optimizer.open(where) as optimizer:
        assert optimizer.trials[first.number].values == {"f": 1.0}
        assert len(optimizer.trials) == first.number + 1
    with opened("exact") as other, Optimizer.open(where) as optimizer:
        other.tell(other.ask(), 1.0)
        assert optimizer.ask().params == pytest.approx(other.ask().params, rel=1e-9)


def test_a_study_in_memory_outlives_its_device(monkeypatch):
    with pretended_device():
        optimizer = opened("exact", device=DEVICE)
        with monkeypatch.context() as patch:
            failing(patch, FAILURES[0][0])
            with pytest.raises(DeviceError, match=r"optimizer\.storage"):
                optimizer.ask()
    again = Optimizer.open(optimizer.storage)
    assert again.ask().params == opened("exact").ask().params


def test_a_run_ends_with_what_failed_and_keeps_its_results(tmp_path, monkeypatch):
    where = tmp_path / "study.db"
    with pretended_device():
        failing(monkeypatch, FAILURES[0][0])
        options = {"n_start": 5, "storage": where, "progress": False, "device": DEVICE}
        with pytest.raises(DeviceError, match="lost while"):
            minimize(branin, PLANE, n_trials=9, **options)
    with Study.open(where) as study:
        assert [trial.state for trial in study.trials] == ["complete"] * 5


@pytest.mark.parametrize("error", [RuntimeError("a bug of ours"), ValueError("CUDA error: no")])
def test_other_errors_are_raised_as_they_are(error):
    with pytest.raises(type(error)) as raised, told_apart(DEVICE, "fitting"):
        raise error
    assert raised.value is error


def test_a_device_that_gives_no_reason_is_named_all_the_same():
    with (
        pytest.raises(DeviceError, match=r"was lost while fitting \(no reason given\)"),
        told_apart(DEVICE, "fitting"),
    ):
        raise torch.AcceleratorError("")


def test_before_torch_had_a_name_for_it_a_lost_device_is_told_by_its_words(monkeypatch):
    monkeypatch.delattr(torch, "AcceleratorError")  # new in torch 2.8
    lost, other = RuntimeError("CUDA error: unspecified launch failure"), RuntimeError("a bug")
    with pytest.raises(DeviceError, match="was lost"), told_apart(DEVICE, "fitting"):
        raise lost
    for device in (DEVICE, torch.device("cpu")):
        with pytest.raises(RuntimeError) as raised, told_apart(device, "fitting"):
            raise other
        assert raised.value is other


@pytest.mark.parametrize("error", [error for error, _ in FAILURES])
def test_the_cpu_is_no_device_that_is_lost(error):
    with pytest.raises(RuntimeError) as raised, told_apart(torch.device("cpu"), "fitting"):
        raise error
    assert raised.value is error


@pytest.mark.usefixtures("in_an_empty_directory")
def test_the_command_line_says_in_one_line_which_device_failed(monkeypatch):
    create(None, "--minimize", "loss", "--n-start", 2)
    for number in range(2):
        line("ask", "study.db")
        line("tell", "study.db", number, number)
    with pretended_device():
        failing(monkeypatch, FAILURES[1][0])
        said = refused(1, "ask", "study.db", "--device", "meta")
    assert said.startswith("Error: the device meta was lost while looking for what to try next")
