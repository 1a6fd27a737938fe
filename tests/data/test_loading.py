"""Loaders: workers that stay, read what they are asked for, and leave signals and errors to the run."""

import os
import signal
import time

import pytest
import torch
from torch.utils.data import Dataset

from contrex.data import image_set
from contrex.data.loading import Loader, TrainingLoader
from contrex.data.views.training import TrainingViews
from contrex.errors import ImageError
from contrex.settings import Augmentation, Digits

DATA = Digits(num_train=20, num_val=2, num_test=2, image_size=32, digit_size=(14, 18), num_clutter=2)


class Numbers(Dataset):
    """(position, the process that read it); 13 cannot be read."""

    def __getitem__(self, position):
        if position == 13:
            raise ImageError("no pixels in 13.")
        return position, os.getpid()


def readers(found):
    return {pid for items in found for _, pid in items}


def positions(found):
    return [[position for position, _ in items] for items in found]


def test_the_same_workers_read_whatever_is_asked_for():
    loader = Loader(Numbers(), list, workers=2)
    first = list(loader.read([[3, 1], [2], [0, 4]]))
    assert positions(first) == [[3, 1], [2], [0, 4]]
    assert next(loader.read([[5], [6], [7], [8], [9]]))[0][0] == 5  # the rest is never asked for
    last = list(loader.read([[1], [2, 1]]))
    assert positions(last) == [[1], [2, 1]]
    assert readers(first) == readers(last)
    assert len(readers(first) - {os.getpid()}) == 2
    pids = readers(first)
    loader.close()
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(is_alive(pid) for pid in pids)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_worker_is_the_error_and_the_worker_stays(workers):
    loader = Loader(Numbers(), list, workers=workers)
    for _ in range(2):
        with pytest.raises(ImageError) as caught:
            list(loader.read([[1], [13], [2]]))
        assert str(caught.value) == "no pixels in 13."
    assert positions(loader.read([[4]])) == [[4]]
    loader.close()


def test_signals_are_for_the_run():
    """Ctrl-C reaches every process of a terminal, and SLURM's SIGTERM every process of a job."""
    loader = Loader(Numbers(), list, workers=2)
    batches = loader.read([[number] for number in range(12)])
    found = [next(batches)]
    for pid in {next(batches)[0][1], found[0][0][1]}:
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(pid, number)
    found += list(batches)
    assert positions(found) == [[0], *([number] for number in range(2, 12))]
    loader.close()


def test_phases_and_epochs_share_the_workers_and_not_their_views():
    """What one process reads, of two phases in turns, in the middle of an epoch too."""
    images = image_set(DATA, "train")
    views = [
        TrainingViews(images, resize=32, size=32, augmentation=Augmentation(scale=scale), seed=seed)
        for scale, seed in (((0.3, 0.5), 1), ((0.9, 1.0), 2))
    ]
    alone, shared = (TrainingLoader(views, batch_size=6, workers=workers) for workers in (0, 2))
    for epoch, phase, start in [(0, 0, 0), (0, 1, 0), (1, 0, 1), (1, 1, 2), (0, 0, 0)]:
        expected, found = (list(one.batches(epoch, phase=phase, start=start)) for one in (alone, shared))
        assert len(found) == len(expected) == 3 - start
        for one, other in zip(found, expected, strict=True):
            assert one.paths == other.paths
            assert torch.equal(one.views[0].pixels, other.views[0].pixels)
            assert (one.views[0].crop.width > 0.9 * 32).float().mean() == phase
    shared.close()
