from __future__ import annotations

import errno

import pytest

from largeforge.jobs import errors
from largeforge.jobs.ranks import Ranks, from_environment


class OutOfMemoryError(RuntimeError):
    """By name what torch raises on a GPU."""


def test_an_unknown_exception_is_told_by_type_and_first_line():
    error = errors.from_exception(RuntimeError("it broke\nwith details"))
    assert (error.exit_code, error.detail().reason) == (1, "TrainingFailed")
    assert error.detail().message == "RuntimeError: it broke"
    assert errors.from_exception(KeyError()).detail().message == "KeyError"


def test_what_looks_like_a_credential_does_not_get_through():
    text = errors.from_exception(RuntimeError("GET https://me:pw@host/x?token=abcdef failed")).detail().message
    assert text == "RuntimeError: GET https://***@host/x?*** failed"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_trouble_has_its_own_reason_and_remedy(error):
    detail = errors.from_exception(error).detail()
    assert detail.reason == "OutOfMemory"
    assert detail.message.endswith("or raise spec.compute.resources.limits.memory")


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    ],
)
def test_a_gpus_memory_is_told_apart_from_the_pods(error):
    detail = errors.from_exception(error).detail()
    assert detail.reason == "OutOfGPUMemory"
    assert detail.message.endswith("or raise spec.compute.gpusPerNode with strategy FSDP")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("[enforce fail at inline_container.cc:1] PytorchStreamWriter failed writing file data/1"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_has_its_own_reason_and_remedy(error):
    detail = errors.from_exception(error).detail()
    assert detail.reason == "DiskFull"
    assert detail.message.endswith("or lower spec.checkpoint.keep")


def test_a_long_text_is_cut():
    assert len(errors.RunError("x" * 5000).detail().message) == errors.MESSAGE_LIMIT


def test_another_number_of_ranks_than_configured_is_refused():
    assert from_environment({"RANK": "1", "WORLD_SIZE": "2"}, expected=2) == Ranks(rank=1, world=2)
    with pytest.raises(errors.InvalidConfigError, match=r"^2 processes must take part \(got 1\)") as caught:
        from_environment({}, expected=2)
    assert caught.value.exit_code == 64
