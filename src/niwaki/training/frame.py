"""All epochs of a run: what is best so far is kept, saved, and gone back to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import length_hint

from torch import Tensor, nn

from niwaki.core.records import Evaluation
from niwaki.running import preserved_rng
from niwaki.training.accelerator import broadcast
from niwaki.training.feed import Batch, Feed
from niwaki.training.folder import Keeper, Saved
from niwaki.training.history import Epoch, History
from niwaki.training.loop import (
    DivergedError,
    Progress,
    Run,
    TrainBatches,
    check_loss,
    check_weights,
    new_sums,
    train_epoch,
)
from niwaki.training.state import (
    copied,
    generators,
    optimizer_state,
    restore_optimizer,
    set_generators,
    under,
)

Validate = Callable[[nn.Module], Evaluation]


@dataclass
class Frame:
    """All epochs of a run; what is best so far is kept aside, so that there is always something
    sound to go back to.
    """

    run: Run
    keeper: Keeper | None
    train_batches: TrainBatches
    validate: Validate | None
    observe: dict[str, Validate] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.progress = Progress(new_sums(self.run.device))
        self.best = copied(self.run.model.state_dict())
        self.epoch_rng = generators(self.run)
        self.now: dict[str, Tensor] = {}  # where the generators were when the run was saved

    def train(self, saved: Saved | None) -> History:
        """Go on to the end."""
        progress, settings = self.progress, self.run.settings
        if saved:
            self._restore(saved)
        while progress.epoch <= settings.epochs and not progress.stopped:
            try:
                self._epoch()
            except DivergedError as error:
                progress.stopped = self._diverged(error)
        if progress.stopped:
            self.run.bar.say(progress.stopped)
        self.run.model.load_state_dict(self.best)
        notes = self.train_batches.notes if isinstance(self.train_batches, Feed) else ()
        history = History(tuple(progress.epochs), progress.best_epoch, progress.stopped, notes)
        if self.keeper and self.run.accelerator.is_main_process:
            self.keeper.save_best(self.best, history.to_dict())
        self.run.accelerator.wait_for_everyone()
        return history

    def _epoch(self) -> None:
        run, progress = self.run, self.progress
        if not progress.step:
            self.epoch_rng = generators(run)
        epoch = train_epoch(run, progress, self._batches(), self._stepped)
        if self._looks_at(epoch.number):
            observed = {name: self._evaluated(look) for name, look in self.observe.items()}
            epoch = dataclasses.replace(epoch, validation=self._validated(), observed=observed)
        self._judge(epoch)
        self._log(epoch)
        progress.finish_epoch(epoch)
        last = progress.epoch > run.settings.epochs or progress.stopped
        if self.keeper and (self.keeper.due or last or run.accelerator.num_processes > 1):
            self._save()

    def _judge(self, epoch: Epoch) -> None:
        """Keep the epoch if it is the best, and stop if there was none for long."""
        progress, patience = self.progress, self.run.settings.patience
        if self.validate is not None and epoch.validation is None:
            return
        score = _score(epoch)
        if score > progress.best_score or self.validate is None:
            self.best = copied(self.run.kept.state_dict())
            progress.best_epoch, progress.best_score, progress.waited = epoch.number, score, 0
            return
        progress.waited += 1
        if patience is not None and progress.waited >= patience:
            progress.stopped = (
                f"training stopped after epoch {epoch.number}: {progress.waited} epochs without a "
                "better validation; "
                f"kept the weights of epoch {progress.best_epoch}"
            )

    def _diverged(self, error: DivergedError) -> str:
        best = self.progress.best_epoch
        kept = f"the weights of epoch {best}" if best else "the weights that training began with"
        return (
            f"training stopped in epoch {self.progress.epoch}: {error}; kept {kept}. "
            f"A lower lr than {self.run.settings.lr} may do"
        )

    def _validated(self) -> Evaluation | None:
        return None if self.validate is None else self._evaluated(self.validate)

    def _looks_at(self, epoch: int) -> bool:
        """Whether an epoch is evaluated."""
        every, last = self.run.settings.evaluate_every, self.run.settings.epochs
        return epoch % every == 0 or epoch == last

    def _evaluated(self, look: Validate) -> Evaluation:
        """By the first process, for all of them."""
        with preserved_rng():  # the weights must not depend on whether someone watches
            own = look(self.run.kept) if self.run.accelerator.is_main_process else None
        result: Evaluation = broadcast(self.run.accelerator, own)
        return result

    def _log(self, epoch: Epoch) -> None:
        numbers = {
            "train/loss": epoch.loss,
            "train/accuracy": epoch.accuracy,
            "train/penalty": epoch.penalty,
            "lr": epoch.lr,
        }
        numbers["images_per_second"] = epoch.samples / max(epoch.seconds, 1e-9)
        if epoch.validation is not None:
            numbers |= {
                "validation/loss": epoch.validation.loss,
                "validation/accuracy": epoch.validation.accuracy,
            }
        for name, evaluation in epoch.observed.items():
            numbers[f"{name}/accuracy"] = evaluation.accuracy
        self.run.accelerator.log(numbers, step=epoch.number)

    def _stepped(self) -> None:
        if self.keeper and self.run.accelerator.num_processes == 1 and self.keeper.due:
            check_loss(self.progress)
            check_weights(self.run.model)
            self._save()

    def _save(self) -> None:
        run, progress = self.run, self.progress
        rng = {f"rng/now/{kind}": state for kind, state in generators(run).items()}
        if not run.accelerator.is_main_process or self.keeper is None:
            return
        tensors: dict[str, Tensor] = {
            **under("model", run.model.state_dict()),
            **under("best", self.best),
            **under("ema", run.ema.state_dict() if run.ema is not None else {}),
            **under("optimizer", optimizer_state(run)),
            **under("rng/epoch", self.epoch_rng),
            **rng,
            "sums": progress.sums,
        }
        plain = {
            f.name: getattr(progress, f.name)
            for f in dataclasses.fields(progress)
            if f.name not in ("sums", "epochs")
        }
        plain["best_score"] = list(progress.best_score) if progress.best_epoch else None
        self.keeper.save(
            tensors, {**plain, "epochs": [dataclasses.asdict(epoch) for epoch in progress.epochs]}
        )

    def _restore(self, saved: Saved) -> None:
        run, progress = self.run, self.progress
        run.model.load_state_dict(saved.part("model"))
        self.best = {
            name: value.to(self.best[name].device) for name, value in saved.part("best").items()
        }
        if run.ema is not None:
            run.ema.load_state_dict(saved.part("ema"))
        restore_optimizer(run, saved.part("optimizer"))
        plain = dict(saved.progress)
        progress.epochs = [Epoch.from_dict(epoch) for epoch in plain.pop("epochs")]
        score = plain.pop("best_score")
        progress.best_score = (score[0], score[1]) if score else (-math.inf, -math.inf)
        for name, value in plain.items():
            setattr(progress, name, value)
        progress.sums = saved.tensors["sums"].to(progress.sums)
        self.epoch_rng = saved.part("rng/epoch")
        set_generators(run, saved.part("rng/now"))
        self.now = saved.part("rng/now") if progress.step else {}

    def _batches(self) -> Iterator[Batch]:
        """What is left of the epoch, this process's part of it."""
        run, progress, given = self.run, self.progress, self.train_batches
        part = (run.accelerator.process_index, run.accelerator.num_processes)
        if isinstance(given, Feed):
            progress.steps = len(given)
            batches = given.batches(progress.epoch, progress.step, part)
        else:
            if (
                self.now
            ):  # the function may draw the epoch's order from torch's generator: let it do so again
                set_generators(run, self.epoch_rng)
            all_batches = given(progress.epoch)
            progress.steps = length_hint(all_batches, progress.steps)
            batches = (_shared(batch, part) for batch in islice(all_batches, progress.step, None))
        if self.now:
            set_generators(run, self.now)
            self.now = {}
        return batches


def _shared(batch: Batch, part: tuple[int, int]) -> Batch:
    """One process's part of a batch."""
    number, of = part
    size = len(batch[1]) // of
    inputs, targets = (
        tensor if of == 1 else tensor[number * size : (number + 1) * size] for tensor in batch
    )
    return inputs, targets


def _score(epoch: Epoch) -> tuple[float, float]:
    """Higher is better: accuracy, then a low loss; a loss that is not finite comes last."""
    if epoch.validation is None:
        return (0.0, 0.0)
    loss = epoch.validation.loss
    return (epoch.validation.accuracy, -loss if math.isfinite(loss) else -math.inf)
