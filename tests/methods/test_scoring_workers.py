"""A whole network is scored: by one process, by two, by Ray with a worker killed at work, and by
one that was killed itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import niwaki
from niwaki.cli.app import main
from niwaki.core.work import Workers
from niwaki.graph.pairs import layer_pairs
from niwaki.methods.mint._layer_dependencies import Dependency, Estimation, layer_dependencies
from niwaki.methods.mint.activations import Sampling
from niwaki.methods.mint.criterion import unit_scores

pytestmark = pytest.mark.usefixtures("one_thread")

WORK = "estimate_piece"  # what a worker at work on a pair of layers is called


@pytest.fixture(scope="module")
def graph() -> niwaki.Graph:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = niwaki.models.build("digits-cnn").eval()
    return niwaki.trace(model, niwaki.models.example_inputs(model))


def scored(graph: niwaki.Graph, workers: Workers) -> tuple[list[Dependency], dict[str, Tensor]]:
    split = niwaki.data.load("digits").split("train")
    calibration = niwaki.Calibration.labelled(lambda: split.batches(250))
    evidence = niwaki.Evidence(
        graph, calibration, torch.Generator().manual_seed(0), say=lambda remark: None
    )
    found = layer_dependencies(
        evidence, layer_pairs(graph), Estimation(8, sampling=Sampling(120), workers=workers)
    )
    return found, unit_scores(graph, found)


@pytest.fixture(scope="module")
def alone(graph: niwaki.Graph) -> tuple[list[Dependency], dict[str, Tensor]]:
    return scored(graph, Workers())


def assert_equal(
    found: tuple[list[Dependency], dict[str, Tensor]],
    wanted: tuple[list[Dependency], dict[str, Tensor]],
) -> None:
    assert [item.pair.name for item in found[0]] == [item.pair.name for item in wanted[0]]
    for item, other in zip(found[0], wanted[0], strict=True):
        assert torch.equal(item.values, other.values), item.pair.name
        assert 0 < float(item.values.max()) <= 1
    assert found[1].keys() == wanted[1].keys()
    assert all(torch.equal(found[1][name], values) for name, values in wanted[1].items())


def test_two_processes_score_a_network_as_one_does(
    graph: niwaki.Graph, alone: tuple[list[Dependency], dict[str, Tensor]]
) -> None:
    assert len(alone[0]) == 5
    assert_equal(scored(graph, Workers(count=2)), alone)


class Killer(threading.Thread):
    """Kills one of this process's descendants that it has found, and stopped, in the middle of a
    piece of work.
    """

    def __init__(self, psutil: Any) -> None:
        super().__init__(daemon=True)
        self.psutil, self.killed, self.over = psutil, 0, threading.Event()

    def run(self) -> None:
        while not self.killed and not self.over.wait(0.005):
            for process in self.psutil.Process().children(recursive=True):
                try:
                    self.strike(process)
                except self.psutil.Error:
                    continue  # it has ended
                if self.killed:
                    break

    def strike(self, process: Any) -> None:
        if not self.at_work(process):
            return
        process.suspend()
        if self.at_work(process):  # stopped, so that it cannot finish in between
            process.send_signal(signal.SIGKILL)
            self.killed = process.pid
        else:
            process.resume()

    @staticmethod
    def at_work(process: Any) -> bool:
        return any(WORK in word for word in process.cmdline())


def test_ray_scores_a_network_as_one_process_does_though_a_worker_is_killed_at_work(
    graph: niwaki.Graph, alone: tuple[list[Dependency], dict[str, Tensor]]
) -> None:
    pytest.importorskip("ray")
    killer = Killer(pytest.importorskip("psutil"))
    killer.start()
    try:
        found = scored(graph, Workers("ray", 2))
    finally:
        killer.over.set()
        killer.join()
    assert killer.killed
    assert_equal(found, alone)


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not happened():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)


def test_a_scoring_that_was_killed_goes_on_from_the_layers_that_it_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "layers"
    words = ["score", "digits-cnn", "--data", "digits", "--samples-per-class", "150"]
    killed, resumed, whole = (
        tmp_path / f"{name}.safetensors" for name in ("killed", "resumed", "whole")
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from niwaki.cli import main; main()",
            *words,
            "--keep",
            str(kept),
            "--out",
            str(killed),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: any(kept.glob("*.json")), process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = {path.name: path.stat().st_mtime_ns for path in kept.glob("*.json")}
    assert 0 < len(finished) < 5
    assert not killed.exists()

    done: list[int] = []
    namespace = layer_dependencies.__globals__
    real = namespace[WORK]

    def counted(*piece: Any) -> Any:
        done.append(1)
        return real(*piece)

    monkeypatch.setitem(namespace, WORK, counted)

    def score(out: Path, *more: str) -> None:
        monkeypatch.setattr(sys, "argv", ["niwaki", *words, "--out", str(out), *more])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code

    score(resumed, "--keep", str(kept))
    assert len(done) == 5 - len(finished)
    assert {name: (kept / name).stat().st_mtime_ns for name in finished} == finished
    score(whole)
    assert len(done) == 5 - len(finished) + 5
    tensors, others = load_file(resumed), load_file(whole)
    assert len(tensors) == 5 * 5 + 4  # of pairs of layers, and of groups
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())
