"""Parameters that a model's code mentions and that no input which was tried has reached: a body for
other lengths, a token for masked places, the head of another task.

What such code reads is not known, but it can read only what its sizes fit. So what the module that
holds it passes around keeps its size where that is one of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from math import prod

from torch import nn

from niwaki.core.patterns import matches
from niwaki.graph.inference import Inference
from niwaki.graph.reasons import Freeze, Reason
from niwaki.graph.terms import freeze
from niwaki.running import Ref, Tape
from niwaki.running.mentions import Mention, mentions

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
_OUTSIDE = "/"  # a seat that no module has


def freeze_around_unreached(model: nn.Module, paths: Sequence[Inference]) -> None:
    """Freeze the axes that unreached code may read, in every path that was run."""
    read = {name for path in paths for name in path.tape.parameters.values()}
    learned = dict(model.named_parameters())
    around: dict[str, list[tuple[Inference, Ref]]] = {}  # of a holder, however much is unreached
    for holder, member, names in _unreached(model, learned.keys(), read):
        if holder not in around:
            around[holder] = [(p, ref) for p in paths for ref in _passed_around(p.tape, holder)]
        sizes = {size for name in names for size in learned[name].shape[:2] if size > 1}
        for path, ref in around[holder]:
            _freeze_sizes(path, ref, sizes, Reason(Freeze.UNREACHED, member))


def _unreached(
    model: nn.Module, learned: Set[str], read: set[str]
) -> Iterator[tuple[str, str, list[str]]]:
    """Module, what it holds and mentions, and the parameters in there, of which none was read.

    Args:
        learned: names of all parameters.
    """
    modules = dict(model.named_modules())
    for holder, module in modules.items():
        if isinstance(module, CONTAINERS):
            continue
        prefix = f"{holder}." if holder else ""
        if not any(name.startswith(prefix) for name in learned - read):
            continue
        for mention in mentions(module):
            for place in _places(module, mention):
                for member in _members(prefix + place, modules, mention.picked):
                    names = [name for name in learned if f"{name}.".startswith(f"{member}.")]
                    if names and not any(name in read for name in names):
                        yield holder, member, names


def _places(module: nn.Module, mention: Mention) -> Iterable[str]:
    """What a mention may name: itself, or all attributes that its pattern fits."""
    if not mention.several:
        return (mention.name,)
    own = (*module.named_children(), *module.named_parameters(recurse=False))
    return [name for name, _ in own if matches(name, (mention.name,))]


def _members(place: str, modules: dict[str, nn.Module], picked: bool) -> Iterator[str]:
    """The place itself; of a container all that it holds, if inputs may say which is picked."""
    module = modules.get(place)
    if not isinstance(module, CONTAINERS) and not (picked and isinstance(module, nn.Sequential)):
        yield place
    elif picked:
        held = (*module.named_children(), *module.named_parameters(recurse=False))
        for name, _ in held:
            yield from _members(f"{place}.{name}", modules, picked)


def _passed_around(tape: Tape, holder: str) -> Iterator[Ref]:
    """Values that a module's own code sees: it makes or reads them, or they go into, out of or
    between the modules that it holds.
    """
    seats: dict[Ref, set[str]] = {}
    for op in tape.ops:
        seat = _seat(op.layer, holder)
        for ref in op.values:
            if ref not in tape.parameters:
                seats.setdefault(ref, set()).add(seat)
    for ref in (*tape.inputs, *tape.outputs):
        seats.setdefault(ref, set()).add("" if holder == "" else _OUTSIDE)
    for ref, places in seats.items():
        if places != {_OUTSIDE} and (len(places) > 1 or holder in places):
            yield ref


def _seat(layer: str, holder: str) -> str:
    """Where a layer stands as a module's own code sees it: in the code itself, in one of the
    modules that it holds, or outside.

    >>> _seat("net.a.conv", "net"), _seat("net", "net"), _seat("head", "net")
    ('net.a', 'net', '/')
    """
    if layer == holder:
        return holder
    prefix = f"{holder}." if holder else ""
    if not layer.startswith(prefix):
        return _OUTSIDE
    return prefix + layer.removeprefix(prefix).partition(".")[0]


def _freeze_sizes(path: Inference, ref: Ref, sizes: set[int], reason: Reason) -> None:
    """Freeze the axes of a value that have one of these sizes, alone or flattened from there on."""
    terms = path.axes.get(ref)
    if terms is None:
        return
    for place, term in enumerate(terms):
        if term.size in sizes or prod(other.size for other in terms[place:]) in sizes:
            freeze(term, reason)
