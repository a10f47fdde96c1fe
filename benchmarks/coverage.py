"""Which networks niwaki and torch-pruning can prune unaided, and whether what they hand back is
right.

    python benchmarks/coverage.py                          # what is not in coverage.json yet, both
    tools python benchmarks/coverage.py --tool niwaki --only 'timm/res*' --again
    python benchmarks/coverage.py --render                 # the table as Markdown

Every (network, tool) runs in a process of its own with one thread and a time limit: build with a
fixed seed in float64, make all constant parameters and all stored statistics random, so that a
wrong cut shows; prune half of the channels, layer by layer, by l2 norm; no hints but, to
torch-pruning, the final layer, which it cannot know. Each line of coverage.json is one such run.
Install requirements-bench.txt first.

`equal` is decided without either tool's help. Which channels went is read off the pruned tensors,
whose values are found again in the original's; the original with all else set to zero (and
normalisations of what is cut taken over what is left) is the network that the pruned one must agree
with, to 1e-8 of the largest output, on the example and on a batch of another size. niwaki's own
check, which replays the recorded operators, has then passed as well, or it had handed back nothing.
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import importlib
import json
import multiprocessing
import os
import resource
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault(
    "TORCHDYNAMO_DISABLE", "1"
)  # torchvision compiles its own fallback for roi_align, for half a minute

import torch
from pages import as_table
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from coverage_coinciding import coinciding
from coverage_models import Case, Inputs, cases

OUT = Path(__file__).with_name("coverage.json")
TOOLS = ("niwaki", "torch-pruning")
TOLERANCE = 1e-8
HALFWAY = 1e-5  # where the network itself computes in float32
BUILD_SECONDS, VERIFY_SECONDS = 600.0, 900.0  # not the tool's doing; here so that a run ends
MEMORY = 14 * 2**30  # bytes of address space a run may take
Row = dict[str, Any]

# ----------------------------------------------------------------------------------------------
# building


def build(case: Case) -> nn.Module:
    """The network in float64 and evaluation mode, nothing in it constant."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    model = case.build().double().eval()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    randomise(model)
    return model


def inputs_of(case: Case, batch: int) -> Inputs:
    """Its example inputs for a batch size."""
    torch.manual_seed(batch)
    return case.inputs(batch)


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Random stored statistics, and random values for every parameter that is one number all
    over.
    """
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name in ("running_var", "running_mean") or "Frozen" in type(module).__name__:
                if name in ("running_var", "weight"):
                    buffer.uniform_(0.5, 1.5)
                elif buffer.is_floating_point():
                    buffer.normal_(0, 0.2)
    for parameter in model.parameters():
        if not parameter.numel() or not parameter.is_floating_point():
            continue
        if bool((parameter != parameter.flatten()[0]).any()):
            zero = parameter == 0  # the row of a padding token
            parameter[zero] = torch.randn(int(zero.sum())) * 0.05
            if parameter.numel() < 100_000 and len(parameter.unique()) < parameter.numel():
                parameter.mul_(
                    torch.rand_like(parameter) * 0.2 + 0.9
                )  # a table that repeats itself
            continue
        value = float(parameter.flatten()[0])
        if abs(value) >= 0.5:
            parameter.uniform_(0.5 * value, 1.5 * value) if value > 0 else parameter.uniform_(
                1.5 * value, 0.5 * value
            )
        else:
            parameter.normal_(
                0, 0.1 if parameter.ndim < 2 else 1 / max(1, parameter[0].numel()) ** 0.5
            )


def run(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """All tensors that the network returns."""
    torch.manual_seed(0)
    with torch.no_grad():
        args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
        args, kwargs = copy.deepcopy((args, kwargs))
        return list(tensors(model(*args, **kwargs)))


def tensors(tree: Any) -> Iterator[Tensor]:
    """The tensors in nested containers and dataclasses."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from tensors(item)
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from tensors(item)
    elif hasattr(tree, "__dict__") and not isinstance(tree, (type, nn.Module)):
        yield from tensors(vars(tree))


# ---------------------------------------------------------------------------------------------- the
# two tools


def with_niwaki(model: nn.Module, inputs: Inputs) -> tuple[nn.Module, Row]:
    """Prune; the row's part on time and what was left."""
    import niwaki
    from niwaki.measure import Latency

    # latencies, taken over seconds, are of no use in this table
    sys.modules["niwaki.measure._snapshot"].measure_latency = (  # type: ignore[attr-defined]
        lambda models, _: [Latency(1.0, 0.0, 1) for _ in models]
    )
    start = time.perf_counter()
    result = niwaki.prune(model, inputs, criterion="l2", budget=0.5, compensation="none")
    whole = time.perf_counter() - start
    seconds = result.record.seconds
    left = {name: why for name, why in result.notes.items() if why.startswith("left whole")}
    return result.model, {
        "trace_s": seconds["trace"],
        "prune_s": sum(
            seconds.get(stage, 0.0) for stage in ("score", "select", "compensate", "shrink")
        ),
        "check_s": seconds["check"],
        "whole_s": whole,
        "proved_on": list(result.proof.covers),
        "remarks": list(result.proof.remarks),
        "left_whole": dict(list(left.items())[:3]),
        "left_whole_count": len(left),
    }


def with_torch_pruning(
    model: nn.Module, inputs: Inputs, final: list[nn.Module]
) -> tuple[nn.Module, Row]:
    """Prune, as the package's own examples do for a plain classifier; it works in place."""
    import torch_pruning as tp

    start = time.perf_counter()
    pruner = tp.pruner.BasePruner(
        model,
        inputs,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=False,
        pruning_ratio=0.5,
        ignored_layers=final,
    )
    traced = time.perf_counter()
    pruner.step()
    end = time.perf_counter()
    return model, {"trace_s": traced - start, "prune_s": end - traced, "whole_s": end - start}


def final_layers(case: Case, model: nn.Module, inputs: Inputs) -> list[nn.Module]:
    """The layers whose width is the output's: named by the case, or found as those whose result is
    returned.

    Where none is (a softmax or a resize follows), the last that ran whose width is a size of an
    output.
    """
    if case.final:
        return [
            module
            for name, module in model.named_modules()
            if any(fnmatch.fnmatch(name, p) for p in case.final)
        ]
    ran: list[tuple[nn.Module, Tensor]] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            ran.append((module, output))

    layers = [
        m for m in model.modules() if hasattr(m, "out_features") or hasattr(m, "out_channels")
    ]
    handles = [layer.register_forward_hook(note) for layer in layers if not list(layer.children())]
    outputs = run(model, inputs)
    for handle in handles:
        handle.remove()
    found = [module for module, result in ran if any(result is output for output in outputs)]
    if not found:
        sizes = {size for output in outputs for size in output.shape[1:]}
        found = [
            m
            for m, _ in ran
            if getattr(m, "out_features", getattr(m, "out_channels", None)) in sizes
        ][-1:]
    return found


# ---------------------------------------------------------------------------------------------- is
# it right?


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def kept_grid(full: Tensor, small: Tensor) -> list[Tensor]:
    """Which indices of every axis are left, found by value. Raises ValueError where the small one
    is no part of the full.
    """
    if full.ndim != small.ndim or any(a < b for a, b in zip(full.shape, small.shape, strict=True)):
        raise ValueError("another shape than a cut leaves")
    corner = (0,) * small.ndim
    lines = [small[(*corner[:a], slice(None), *corner[a + 1 :])] for a in range(small.ndim)]
    places = torch.isin(full, torch.cat(lines)).nonzero()
    where: dict[float, list[int] | None] = {}
    for value, place in zip(full[places.unbind(1)].tolist(), places.tolist(), strict=True):
        where[value] = None if value in where else place
    kept = []
    for axis, line in enumerate(lines):
        found = [where.get(value) for value in line.tolist()]
        if any(place is None for place in found):
            raise ValueError("values that are not the original's, or are there twice")
        kept.append(torch.tensor([place[axis] for place in found if place]))
    if not torch.equal(full[torch.meshgrid(*kept, indexing="ij")], small):
        raise ValueError("not one set of indices an axis")
    return kept


@torch.no_grad()
def masked_twin(original: nn.Module, pruned: nn.Module) -> nn.Module:
    """The original with all that is not in the pruned one set to zero, see the module's
    docstring.
    """
    twin = copy.deepcopy(original)
    full, small = state_of(twin), state_of(pruned)
    kept: dict[str, list[Tensor]] = {}
    for name, tensor in full.items():
        if name not in small:
            raise ValueError(f"{name} is gone")
        if tensor.shape == small[name].shape or not tensor.is_floating_point():
            continue
        try:
            kept[name] = kept_grid(tensor, small[name].to(tensor.dtype))
        except ValueError as error:
            if name in dict(twin.named_parameters()):
                raise ValueError(f"{name}: {error}") from None
            continue
        grid = torch.meshgrid(*kept[name], indexing="ij")
        values = (
            torch.ones_like(tensor) if name.endswith("running_var") else torch.zeros_like(tensor)
        )
        values[grid] = tensor[grid]
        tensor.copy_(values)
    narrow(twin, pruned, kept)
    return twin


def narrow(twin: nn.Module, pruned: nn.Module, kept: dict[str, list[Tensor]]) -> None:
    """Let normalisations, and convolutions that standardise their weights, see only what is
    left.
    """
    others = dict(pruned.named_modules())
    sizes = {name: tuple(tensor.shape) for name, tensor in state_of(twin).items()}
    for name, module in twin.named_modules():
        own = [key for key, _ in module.named_parameters(prefix=name, recurse=False) if key in kept]
        kind = type(module).__name__.lower()
        if "stdconv" in kind and own:
            module.forward = standardised(module, others[name], kept[f"{name}.weight"])  # type: ignore[method-assign]
        if not ("norm" in kind or kind.endswith("grn")) or "running_var" in dict(
            module.named_buffers()
        ):
            continue
        if own:
            axis = max(range(len(sizes[own[0]])), key=lambda a: sizes[own[0]][a])
            indices, width = kept[own[0]][axis], sizes[own[0]][axis]
        elif getattr(module, "normalized_shape", 0) != getattr(others[name], "normalized_shape", 0):
            module.forward = NarrowedToLiving(others[name])  # type: ignore[method-assign]
            continue
        else:
            continue
        if isinstance(module, nn.GroupNorm):
            counts = Counter((indices // (width // module.num_groups)).tolist())
            if len(set(counts.values())) > 1 or len(counts) != others[name].num_groups:
                raise ValueError(f"{name}: its groups were cut unevenly")
        first = "2d" in kind or "group" in kind
        module.forward = Narrowed(
            others[name], indices, indices, width, width, [1, -1] if first else [-1, 1]
        )  # type: ignore[method-assign]


def standardised(module: nn.Conv2d, other: nn.Conv2d, kept: list[Tensor]) -> Narrowed:
    """A convolution on what is left of its input."""
    outputs, inputs = kept[0], kept[1]
    a_group = module.in_channels // module.groups
    groups = (outputs // (module.out_channels // module.groups)).unique()
    inputs = (groups[:, None] * a_group + inputs).flatten()
    return Narrowed(other, inputs, outputs, module.in_channels, module.out_channels, [1])


@dataclass
class Narrowed:
    """A layer that is run on some channels alone, its result spread out to full width."""

    module: nn.Module
    inputs: Tensor
    outputs: Tensor
    width: int
    out_width: int
    order: list[int]  # axes that may be that of the channels

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        x = args[0]
        axis = next(a % x.ndim for a in self.order if x.shape[a] == self.width)
        cut = [
            a.index_select(axis, self.inputs) if isinstance(a, Tensor) and a.shape == x.shape else a
            for a in args
        ]
        result = self.module(*cut, **kwargs)
        shape = [self.out_width if a == axis else size for a, size in enumerate(result.shape)]
        return result.new_zeros(shape).index_copy(axis, self.outputs, result)


@dataclass
class NarrowedToLiving:
    """A normalisation without parameters: run on the channels that are not zero throughout, which
    is what is left.
    """

    module: nn.Module

    def __call__(self, x: Tensor) -> Tensor:
        living = (x != 0).flatten(0, -2).any(0).nonzero().squeeze(1)
        if (len(living),) != tuple(self.module.normalized_shape):
            raise ValueError("a normalisation without parameters: what is cut of it cannot be told")
        return torch.zeros_like(x).index_copy(-1, living, self.module(x.index_select(-1, living)))


def difference(wanted: list[Tensor], found: list[Tensor]) -> float:
    """The largest one, as a share of the largest entry of its tensor; infinite where the forms
    differ.
    """
    if [t.shape for t in wanted] != [t.shape for t in found]:
        return float("inf")
    worst = 0.0
    for a, b in zip(wanted, found, strict=True):
        if not a.numel():
            continue
        if not a.is_floating_point():
            worst = max(worst, 0.0 if torch.equal(a, b) else float("inf"))
            continue
        finite = a.isfinite()
        if not torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num()):
            return float("inf")
        gap = (a[finite] - b[finite]).abs().max() if bool(finite.any()) else torch.tensor(0.0)
        worst = (
            max(worst, float(gap / a[finite].abs().max().clamp(min=1e-30)))
            if bool(finite.any())
            else worst
        )
    return worst


# modules that compute weights from the whole of a parameter, or take a mean over channels in code
# of their own: zeros are not the same to them as fewer channels
COUNTED = "numbers from its counts of channels"  # niwaki says so: the cut is more than a mask
INCOMPARABLE = ("Parametrized", "WeightNorm", "SpatialAttention", "SwinUNETR")


def verify(case: Case, original: nn.Module, pruned: nn.Module, examples: Inputs) -> Row:
    """Whether the pruned network runs, keeps its outputs' shapes, and computes what the masked
    original computes.
    """
    row: Row = {"runs": False, "shapes": False, "equal": "not compared", "other_batch": "not taken"}
    wanted, found = run(original, examples), run(pruned, examples)
    row["runs"] = True
    row["shapes"] = case.by_value or [t.shape for t in wanted] == [t.shape for t in found]
    if not row["shapes"]:
        row["error"] = "the outputs have other shapes"
        return row
    if difference(wanted, found) == 0 and changed(original, pruned):
        row["note"] = "the output does not depend on what was cut"
    try:
        twin = masked_twin(original, pruned)
        worst = difference(run(twin, examples), found)
    except (ValueError, RuntimeError, StopIteration) as error:
        row["note"] = f"not compared: {first_line(error)}"
        twin = None
    else:
        row["equal"] = "yes" if worst <= TOLERANCE else "no"
        row["difference"] = worst
    other = inputs_of(case, 5)  # niwaki's probes are of 3 and 7
    try:
        wanted = run(original, other)
    except Exception:
        other = None  # the original takes no other batch
    if other is not None:
        found = run(pruned, other)
        row["other_batch"] = (
            "runs"
            if case.by_value or [t.shape for t in wanted] == [t.shape for t in found]
            else "wrong shape"
        )
        if twin is not None and row["other_batch"] == "runs":
            worst = max(worst, difference(run(twin, other), found))
            row["equal"] = "yes" if worst <= TOLERANCE else "no"
            row["difference"] = worst
    if row["equal"] == "no" and worst <= HALFWAY and in_single_precision(original, examples):
        row["equal"], row["note"] = "yes", "to float32, in which it computes in part"
    if row["equal"] == "no":
        kinds = {type(m).__name__ for m in original.modules()}
        if any(word in kind for kind in kinds for word in INCOMPARABLE):
            row["equal"], row["note"] = (
                "not compared",
                f"statistics of what is cut; differs by {worst:.1e} from zeroed",
            )
    return row


def in_single_precision(model: nn.Module, examples: Inputs) -> bool:
    """Whether an operator of the network, which has weights in float64, gives float32."""
    from niwaki.running import record

    return torch.float32 in record(model, examples).dtypes


def changed(original: nn.Module, pruned: nn.Module) -> bool:
    """Whether anything was cut at all."""
    before, after = state_of(original), state_of(pruned)
    return any(before[name].shape != after[name].shape for name in before if name in after)


# ---------------------------------------------------------------------------------------------- one
# run


def first_line(error: BaseException) -> str:
    """The type of an error and its first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:400]


def work(case: Case, tool: str, pipe: Connection) -> None:
    """Everything in the process of one run; the pipe takes stages and, last, the row."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(
        False
    )  # one operator for a whole layer would pass the narrowed ones by
    with open(os.devnull, "w") as silence:
        os.dup2(silence.fileno(), 1)
        if "COVERAGE_DEBUG" not in os.environ:
            os.dup2(silence.fileno(), 2)
    row: Row = {"ok": False}
    pipe.send(("build", row))
    stage = "build"
    try:
        model = build(case)
        examples = inputs_of(case, 2)
        run(model, examples)
        original = copy.deepcopy(model)
        warm_up(tool)
        row["params"] = sum(p.numel() for p in model.parameters())
        final = final_layers(case, model, examples) if tool == "torch-pruning" else []
        stage = "prune"
        pipe.send((stage, row))
        if tool == "niwaki":
            pruned, more = with_niwaki(model, examples)
        else:
            pruned, more = with_torch_pruning(model, examples, final)
        row.update(more)
        row["params_after"] = sum(p.numel() for p in pruned.parameters())
        stage = "verify"
        pipe.send((stage, row))
        row.update(verify(case, original, pruned, examples))
        if row["equal"] == "no" and any(COUNTED in text for text in row.get("remarks", ())):
            row["equal"], row["note"] = "not compared", "numbers computed from counts, as it says"
        row["ok"] = (
            row["runs"]
            and row["shapes"]
            and row["equal"] != "no"
            and row["other_batch"] != "wrong shape"
        )
        row["ok"] = row["ok"] and row["params_after"] < row["params"]
        row.update(macs(original, pruned, examples))
    except BaseException as error:
        row["error"] = first_line(error)
        row["failed_in"] = stage
        row["trace_back"] = [
            f"{f.filename.split('site-packages/')[-1]}:{f.lineno}"
            for f in traceback.extract_tb(error.__traceback__)
        ]
        row["trace_back"] = row["trace_back"][-4:]
    if tool == "niwaki" and stage != "build":
        pipe.send(("explain", row))
        row.update(explained(original, examples))
    pipe.send(("done", row))


def warm_up(tool: str) -> None:
    """What a tool imports and compiles on first use is not the network's doing."""
    tiny, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), torch.randn(2, 3)
    if tool == "niwaki":
        import niwaki

        graph = niwaki.trace(tiny, x)
        plan = niwaki.select(niwaki.Scores(graph, niwaki.score(graph, "l2")), 0.5).plan
        niwaki.check(niwaki.Cut(graph, plan), niwaki.shrink(niwaki.Cut(graph, plan)))
    else:
        with_torch_pruning(tiny, (x,), [tiny[-1]])


def macs(original: nn.Module, pruned: nn.Module, examples: Inputs) -> Row:
    """Multiply-adds a sample before and after, counted by niwaki for both tools."""
    import niwaki

    try:
        return {
            "macs": niwaki.count_macs(original, examples),
            "macs_after": niwaki.count_macs(pruned, examples),
        }
    except Exception as error:
        return {"macs_error": first_line(error)}


def explained(model: nn.Module, examples: Inputs) -> Row:
    """What niwaki does not know in this network, and why parameters are frozen, by the share of
    parameters that touch it.
    """
    import niwaki
    from niwaki.graph.terms import leaves

    try:
        graph = niwaki.trace(model, examples)
    except Exception:
        return {}
    reasons: Counter[str] = Counter()
    total = sum(t.numel() for t in graph.state.values())
    for name, terms in graph.inference.parameters.items():
        found = {
            var.frozen for term in terms for var in leaves(term) if var.frozen and var.size > 1
        }
        found = {str(reason) for reason in found}
        found = {reason for reason in found if not reason.startswith("model output")}
        for reason in {reason.split(" in ")[0] for reason in found} - {"model input", "spatial"}:
            reasons[reason] += graph.state[name].numel()
    shares = {reason: round(count / total, 3) for reason, count in reasons.most_common(4)}
    return {"unknown": dict(graph.unknown), "frozen": shares, "groups": len(graph.groups)}


# ----------------------------------------------------------------------------------------------
# many runs


@dataclass
class Running:
    """A process at work."""

    case: Case
    tool: str
    process: Any
    pipe: Connection
    deadline: float
    stage: str = "build"
    row: Row = field(default_factory=dict)


def run_all(
    todo: list[tuple[Case, str]], limit: float, jobs: int, done: Callable[[Row], None]
) -> None:
    """One process after the other, or a few side by side."""
    context = multiprocessing.get_context("fork")
    limits = {
        "build": BUILD_SECONDS,
        "prune": limit,
        "verify": VERIFY_SECONDS,
        "explain": 240.0,
        "done": 10.0,
    }
    waiting, running = list(reversed(todo)), []
    while waiting or running:
        while waiting and len(running) < jobs:
            case, tool = waiting.pop()
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=work, args=(case, tool, theirs), daemon=True)
            process.start()
            theirs.close()
            running.append(Running(case, tool, process, ours, time.monotonic() + BUILD_SECONDS))
        wait([item.pipe for item in running], timeout=0.5)
        for item in list(running):
            if finished(item, limits):
                item.process.kill()
                item.process.join()
                running.remove(item)
                done({"model": item.case.name, "tool": item.tool, **item.row})


def finished(item: Running, limits: Mapping[str, float]) -> bool:
    """Take what a process has sent; whether it is through, dead or out of time."""
    try:
        while item.pipe.poll():
            item.stage, item.row = item.pipe.recv()
            item.deadline = time.monotonic() + limits[item.stage]
    except EOFError:
        if item.stage not in ("done", "explain"):
            item.row.update(
                ok=False, failed_in=item.stage, error="the process died (out of memory?)"
            )
        return True
    if item.stage == "done":
        return True
    if time.monotonic() > item.deadline:
        if item.stage != "explain":
            error = f"not done with {item.stage} after {limits[item.stage]:.0f} s"
            item.row.update(ok=False, failed_in=item.stage, error=error)
        return True
    return False


def read(path: Path) -> list[Row]:
    return json.loads(path.read_text()) if path.exists() else []


def write(path: Path, rows: list[Row]) -> None:
    """One run a line, in order, so that a diff shows what changed."""
    rows.sort(key=lambda row: (row["model"], row["tool"]))
    lines = ",\n".join(json.dumps(rounded(row)) for row in rows)
    scratch = path.with_suffix(".part")
    scratch.write_text(f"[\n{lines}\n]\n")
    scratch.replace(path)


def rounded(row: Row) -> Row:
    return {
        key: float(f"{value:.3g}") if isinstance(value, float) else value
        for key, value in row.items()
    }


# ---------------------------------------------------------------------------------------------- the
# table


def share_gone(row: Row, key: str) -> str:
    if not row.get(key) or row.get(f"{key}_after") is None:
        return "–"
    return f"{1 - row[f'{key}_after'] / row[key]:.0%}"


def summary(rows: list[Row]) -> str:
    """Totals a tool."""
    totals: list[list[object]] = []
    by_tool = {tool: [row for row in rows if row["tool"] == tool] for tool in TOOLS}

    def line(title: str, count: Callable[[list[Row]], object]) -> None:
        totals.append([title, *(count(by_tool[tool]) for tool in TOOLS)])

    line("networks tried", len)
    line(
        "handed back, runs, right",
        lambda found: sum(row["ok"] and row["equal"] == "yes" for row in found),
    )
    line(
        "handed back, runs, could not be compared",
        lambda found: sum(row["ok"] and row["equal"] != "yes" for row in found),
    )
    line("handed back and runs, but wrong", lambda found: sum(is_wrong(row) for row in found))
    line(
        "handed back, does not run",
        lambda found: sum(row.get("failed_in") == "verify" for row in found),
    )
    line(
        "nothing cut",
        lambda found: sum(row.get("params_after") == row.get("params", 0) for row in found),
    )
    line("refused or crashed", lambda found: sum(ended(row) == "refused" for row in found))
    line("not done in time", lambda found: sum(ended(row) == "too slow" for row in found))
    line("of those handed back, proved on other inputs and modes too", _proved_elsewhere)
    line("no group left whole for a size that its code holds", _all_followed)
    return as_table(["", *TOOLS], totals, numbers=len(TOOLS))


def _proved_elsewhere(rows: list[Row]) -> object:
    """How many were held against the original on more than the example and made-up weights."""
    return sum(row["ok"] and len(row["proved_on"]) > 2 for row in rows if "proved_on" in row) or "–"


def _all_followed(rows: list[Row]) -> object:
    return (
        sum(row["ok"] and not row["left_whole_count"] for row in rows if "proved_on" in row) or "–"
    )


def ended(row: Row) -> str:
    """How the pruning ended."""
    if row.get("failed_in") != "prune":
        return "handed back"
    return "too slow" if row["error"].startswith("not done") else "refused"


def is_wrong(row: Row) -> bool:
    """It runs, and is not what the masked original is."""
    return bool(row.get("runs")) and (
        row["equal"] == "no" or not row["shapes"] or row["other_batch"] == "wrong shape"
    )


def render(rows: list[Row]) -> str:
    """The whole table in Markdown."""
    head = (
        "| network | tool | ok | parameters | after | MACs gone | equal | proved on | left whole | "
        "s | error or remark |"
    )
    lines = [summary(rows), "", head, "|---|---|---|---:|---:|---:|---|---:|---:|---:|---|"]
    for row in rows:
        sizes = [f"{row[key]:,}" if key in row else "–" for key in ("params", "params_after")]
        seconds = f"{row['whole_s']:.1f}" if "whole_s" in row else "–"
        counts = [str(len(row.get("proved_on", ()))), str(row.get("left_whole_count", ""))]
        cells = [
            row["model"],
            row["tool"],
            "yes" if row["ok"] else "no",
            *sizes,
            share_gone(row, "macs"),
            row.get("equal", "–"),
            *(counts if row["tool"] == "niwaki" and "proved_on" in row else ("–", "–")),
            seconds,
        ]
        why = next(iter(row.get("left_whole", {}).values()), "")
        said = row.get("error") or row.get("note") or why
        said = " ".join(said.split()).replace("|", "\\|").replace("<", "&lt;")[:140]
        lines.append("| " + " | ".join([*cells, said]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="prune many networks with niwaki and torch-pruning"
    )
    parser.add_argument(
        "--only", default="*", help="networks by name, with * and ?; several by comma"
    )
    parser.add_argument("--tool", choices=TOOLS, help="one of the two; default: both")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="processes side by side; times are worth nothing above 1",
    )
    parser.add_argument(
        "--limit-seconds",
        type=float,
        default=60.0,
        help="for one network and tool, without building",
    )
    parser.add_argument("--again", action="store_true", help="run also what the file has already")
    parser.add_argument("--failed", action="store_true", help="run again what failed")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--list", action="store_true", help="names only")
    parser.add_argument(
        "--render", action="store_true", help="print the table as Markdown and run nothing"
    )
    options = parser.parse_args()
    rows = read(options.out)
    if options.render:
        print(render(rows))
        return
    chosen = [
        case
        for case in (*cases(), *coinciding())
        if any(fnmatch.fnmatch(case.name, p) for p in options.only.split(","))
    ]
    if options.list:
        print("\n".join(case.name for case in chosen))
        return
    preload()
    have = {
        (row["model"], row["tool"])
        for row in rows
        if not (options.again or (options.failed and not row["ok"]))
    }
    tools = [options.tool] if options.tool else list(TOOLS)
    todo = [(case, tool) for tool in tools for case in chosen if (case.name, tool) not in have]

    def done(row: Row) -> None:
        row["alone"] = options.jobs == 1  # and it is for the user to keep the machine quiet
        rows[:] = [
            old for old in rows if (old["model"], old["tool"]) != (row["model"], row["tool"])
        ] + [row]
        write(options.out, rows)
        seconds = row.get("trace_s", 0) + row.get("prune_s", 0)
        why = row.get("error", row.get("note", ""))[:130]
        words = (
            f"{share_gone(row, 'params'):>5} {seconds:6.2f} s  equal "
            f"{row.get('equal', '–'):<13}{why}"
        )
        print(
            f"{'ok ' if row['ok'] else 'NO '} {row['tool']:<14}{row['model']:<44}{words}",
            flush=True,
        )

    run_all(todo, options.limit_seconds, options.jobs, done)
    print(summary(rows))


def preload() -> None:
    """Import once, before the processes fork, what all of them need."""
    for name in (
        "timm",
        "torchvision",
        "transformers",
        "torch_pruning",
        "torch.utils.flop_counter",
        "niwaki",
    ):
        importlib.import_module(name)
    torch.set_num_threads(1)


if __name__ == "__main__":
    main()
