"""A machine with GPUs, as far as tconv can tell: NumPy memory behind CuPy's names."""

from __future__ import annotations

import threading
from types import ModuleType

import numpy as np

from standin import Standin

_current = threading.local()

# The stand-in has one processor.
_one_at_a_time = threading.Lock()


class OnDevice(np.ndarray):
    """NumPy memory that stands for a device's, with CuPy's ``device`` and ``get``."""

    number = 3

    def __array_finalize__(self, other):
        self.number = getattr(other, "number", self.number)

    @property
    def device(self):
        return Device(self.number)

    @property
    def __cuda_array_interface__(self):
        return self.__array_interface__

    def get(self):
        return np.array(self)

    def conj(self):
        assert made_current() == [self.number]  # where CuPy computes
        return super().conj()


class Device:
    """CuPy's device, which is made current by ``with``."""

    def __init__(self, number):
        self.id = number

    def __enter__(self):
        _current.devices = [*made_current(), self.id]

    def __exit__(self, *error):
        _current.devices = made_current()[:-1]


def made_current():
    """Return the devices that this thread has made current, the last one last."""
    return getattr(_current, "devices", [])


def on_device(array, number=3):
    """Return an array on a pretended device."""
    there = array.view(OnDevice)
    there.number = number
    return there


class CurrentDevice(Standin):
    """A device that must be current whenever it is used, and says what it was used for."""

    def __init__(self, number):
        super().__init__()
        self.number = number
        self.allocated = []
        self.uploaded = []

    def kernel(self, specialisation):
        assert made_current() == [self.number]
        with _one_at_a_time:
            kernel = super().kernel(specialisation)

        def launch_kernel(*args, **kwargs):
            with _one_at_a_time:
                kernel(*args, **kwargs)

        return launch_kernel

    def empty(self, shape, dtype):
        assert made_current() == [self.number]
        self.allocated.append(shape)
        return on_device(super().empty(shape, dtype), self.number)

    def upload(self, array):
        self.uploaded.append(array)
        return super().upload(array)


class Machine(dict):
    """The devices by their number, each of which there is once."""

    def __missing__(self, number):
        self[number] = CurrentDevice(number)
        return self[number]


def cupy():
    """Return a module that copies between the host and a pretended device."""
    module = ModuleType("cupy")
    module.ndarray, module.asarray, module.asnumpy = OnDevice, on_device, np.asarray
    return module
