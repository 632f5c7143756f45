"""One use of a model at a time, in torch's usual modes whatever the caller has set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_AUTOCAST = ("cpu", "cuda")
"""Kinds of devices whose autocast would round what is computed."""


class Guard:
    """Lock of a loaded model.

    Learners on one model add their memories to it by hooks, and passes are cut short by hooks: two threads that ran it
    at a time would see each other's. So one thread has it until it is done; within that thread, uses may be nested.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._usual = False

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keeps other threads out."""
        with self._lock:
            yield

    @contextmanager
    def usual(self) -> Iterator[None]:
        """Keeps other threads out, and torch in its usual modes; see :func:`usual_modes`."""
        with self._lock:
            if self._usual:
                # Inside another one: what has been chosen since, such as no_grad, stays.
                yield
                return
            self._usual = True
            try:
                if _are_usual():
                    # Almost always: an episode's shortest step must not pay for what is rare.
                    yield
                else:
                    with usual_modes():
                        yield
            finally:
                self._usual = False


def _are_usual() -> bool:
    """Whether torch is in its usual modes already."""
    return (
        torch.is_grad_enabled()
        and not torch.is_inference_mode_enabled()
        and torch.get_default_dtype() == torch.float32
        and not any(map(torch.is_autocast_enabled, _AUTOCAST))
        and torch.empty(0).device.type == "cpu"
    )


@contextmanager
def usual_modes() -> Iterator[None]:
    """Torch's usual modes: gradients on, neither inference mode nor autocast, float32 and the CPU by default.

    Targets and nights need gradients, tensors that are made in inference mode can never have any, and what is kept for
    later would be of the caller's default type: without this, results would depend on where they were asked for.
    """
    dtype, autocast = torch.get_default_dtype(), [kind for kind in _AUTOCAST if torch.is_autocast_enabled(kind)]
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in autocast:
            stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, dtype)
        yield
