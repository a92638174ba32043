"""The training loop: flat, read downwards. Batch, losses, backward, step, average, log, evaluate, save; again."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.config import TrainSettings, from_dict, to_dict
from pixelwise.core.atomic import atomic
from pixelwise.core.modelfile import ModelCard, current_versions, load_weights_into, save_model
from pixelwise.core.registry import create_model
from pixelwise.core.sample import Batch
from pixelwise.data.dataset import DataSet
from pixelwise.data.doctor import admit
from pixelwise.data.loader import make_loader
from pixelwise.data.statistics import Statistics, statistics
from pixelwise.data.transforms import training_transforms
from pixelwise.errors import ConfigError, DataError, MemoryLimitError, OutputError
from pixelwise.evaluation import evaluate_split
from pixelwise.losses.criterion import Recipe, criterion
from pixelwise.losses.mix import parse
from pixelwise.objectives import Supervised
from pixelwise.tasks import make_task
from pixelwise.training import checkpoint
from pixelwise.training.distributed import World, full_tensors, load_full
from pixelwise.training.log import Log, clock, plain
from pixelwise.training.machine import describe, pick_device, pick_precision
from pixelwise.training.optim import Average, Schedule, make_optimizer
from pixelwise.training.plan import Plan, fit, make_plan, model_options, preprocessing_of, weights_of

SAVE_EVERY = 120.0  # seconds between states to resume from
EVALUATION_SHARE = 0.1  # of a time budget, at most


@dataclass(frozen=True)
class Run:
    """A finished (or interrupted) training.

    out       its folder
    model     the best model's file
    scores    the best scores on the validation split
    complete  False after Ctrl-C
    """

    out: Path
    model: Path
    scores: dict[str, Any]
    complete: bool


@dataclass
class Position:
    """Where a training is; all of it stands in the state that is resumed from."""

    epoch: int = 0
    batch: int = 0  # batches done in this epoch
    step: int = 0  # batches done in all
    elapsed: float = 0.0  # seconds, of all sessions
    progress: float = 0.0
    best: float = -math.inf
    best_scores: dict[str, Any] | None = None
    stale: int = 0  # evaluations without a better one
    last_evaluation: float = 0.0  # seconds it took
    evaluated_at: float = 0.0  # elapsed, when it ended
    log_offset: int = 0


class Training:
    """Everything a training holds, built once from the settings; `run` is the loop."""

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings = _merge_resumed(settings)
        self.out = settings.out
        self.device = pick_device(settings.device)
        self.precision = pick_precision(settings.precision, self.device)
        self.world = World(self.device, self.precision, shard=settings.shard)
        self.log = Log(self.out, speaks=self.world.first, tensorboard=settings.tensorboard, offset=_resume_offset(settings))
        torch.manual_seed(settings.seed)
        self._open_data()
        self._build_net()

    def _open_data(self) -> None:
        s = self.settings
        self.dataset: DataSet = admit(s.data, s.dataset.format, self.log.say)
        self.train_records = self.dataset.records(s.dataset.train)
        if not self.train_records:
            raise DataError(f"{s.data}: the split '{s.dataset.train}' has no image.")
        self.val_records = self.dataset.records(s.dataset.val) if s.dataset.val in self.dataset.splits else ()
        self.stats: Statistics = statistics(self.dataset, s.dataset.train)
        name = self.dataset.default_task if s.task == "auto" else s.task
        self.task = make_task(name, self.dataset.classes)
        say = self.log.say
        say(f"data      {s.data} ({self.dataset.format}): {len(self.train_records)} to train on, {len(self.val_records)} to validate")
        for note in self.dataset.notes:
            say(f"          {note}")
        how = "as asked" if s.task != "auto" else "from the truth that is there (set --task)"
        say(f"task      {name}, {how}; {len(self.task.classes)} classes")
        if not self.val_records:
            say(f"          there is no split '{s.dataset.val}': the last model is kept, none is chosen")

    def _build_net(self) -> None:
        s, say = self.settings, self.log.say
        self.preprocessing = preprocessing_of(self.dataset, self.stats)
        self.options = model_options(s, self.dataset)
        net = create_model(s.model, classes=self.task.classes.channels, **self.options)
        if s.weights is not None:
            kept, dropped = load_weights_into(net, s.weights)
            say(f"weights   {s.weights}: kept {len(kept)} tensors, dropped {len(dropped)}" + (f": {', '.join(dropped)}" if dropped else ""))
        self.net: nn.Module = net.to(self.device, memory_format=torch.channels_last)
        mix = parse(s.loss)
        if s.class_weights != "none" and not mix.takes_class_weights:
            raise ConfigError(f"--class-weights {s.class_weights}: no term of --loss {mix} takes them; add ce, focal, ohem or topk.")
        recipe = Recipe(mix, weights_of(s, self.task, self.stats))
        self.objective = Supervised(self.preprocessing, recipe)
        plan = make_plan(s, self.dataset, self.stats, len(self.train_records), self.device, self.precision)
        self.plan: Plan = fit(plan, s, self.net, self.preprocessing, self.device, self.world.autocast, lambda o: o.logits.float().sum()
                              if hasattr(o, "logits") else o.masks.float().sum())  # fmt: skip
        count = sum(p.numel() for p in net.parameters())
        say(f"model     {s.model} {self.options}, {count:,} parameters")
        say(f"machine   {describe(self.device)}; {self.precision}, {self.world.size} process{'es' if self.world.size > 1 else ''}")
        for line in self.plan.said:
            say(f"          {line}")
        length = f"{self.plan.epochs} epochs" if self.plan.epochs else f"{self.plan.minutes:g} minutes"
        say(f"training  {length}, batch {self.plan.batch_size}, crop {self.plan.crop[0]}x{self.plan.crop[1]}, lr {self.plan.lr:g}, loss {recipe.mix}")
        self.scored = create_model(s.model, classes=self.task.classes.channels, **self.options)
        self.scored = self.scored.to(self.device, memory_format=torch.channels_last).eval()
        self.model, self.optimizer = self.world.prepare(self.net, lambda n: make_optimizer(n, s.optim, self.plan.lr))
        self.schedule = Schedule(s.schedule, self.plan.lr)
        self.average = Average(s.optim.ema)
        self.at = Position()
        things = self.dataset.classes.is_thing.tolist()
        transform = training_transforms(s.transforms, crop=self.plan.crop, class_counts=self.stats.pixel_counts, things=things)
        self.loader = make_loader(self.dataset, self.train_records, self.task, transform=transform, batch_size=self.plan.batch_size,
                                  seed=s.seed, shuffle=True, workers=self.plan.workers, rank=self.world.rank, world=self.world.size,
                                  balanced=s.dataset.balanced, drop_last=True, cache=self.plan.cache,
                                  pin=self.device.type == "cuda")  # fmt: skip

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> Run:
        self._write_run_json()
        state = self.out / "resume" / "state.safetensors"
        if self.settings.resume and state.exists():
            self._restore(state)
        at, plan, s = self.at, self.plan, self.settings
        self._started = time.monotonic() - at.elapsed
        self._saved = time.monotonic()
        complete = True
        with self.log, _interruptible() as interrupted:
            while at.progress < 1 and not self._stopped_early():
                self.loader.set_epoch(at.epoch, start=at.batch)
                for batch in self.loader:
                    losses = self._step(batch.to(self.device))
                    if at.step % 10 == 0:
                        self._log_step(losses)
                    if interrupted() or time.monotonic() - self._saved > SAVE_EVERY:
                        self._save_state()
                    if interrupted():
                        complete = False
                        break
                    if at.progress >= 1:
                        break
                if not complete:
                    break
                at.epoch, at.batch = at.epoch + 1, 0
                if at.progress >= 1 or self._evaluation_due():
                    self._evaluate_and_keep()
                    self._save_state()
        if not complete:
            self.log.say(f"interrupted at {at.progress:.0%}; go on with: pixelwise train {s.data} --out {self.out} --resume")
            return Run(self.out, self.out / "last.safetensors", at.best_scores or {}, False)
        if plan.minutes and self.world.first:
            self.log.say(f"finished  {at.step} steps, {at.epoch} epochs in {clock(self._elapsed())}")
        return Run(self.out, self.out / "model.safetensors", at.best_scores or {}, True)

    def _step(self, batch: Batch) -> dict[str, float]:
        """One batch: losses, backward and, when enough gradients are summed, a step of the optimiser."""
        at, s = self.at, self.settings
        self.model.train()
        last = (at.step + 1) % s.optim.accumulate == 0
        try:
            with contextlib.nullcontext() if last else self.world.no_sync(self.model):
                with self.world.autocast():
                    losses = self.objective(self.model, batch, self.task, at.progress)
                total: Tensor = sum(losses.values())  # type: ignore[assignment]
                self.world.backward(total / s.optim.accumulate)
        except torch.cuda.OutOfMemoryError:
            raise MemoryLimitError(
                f"The GPU's memory does not hold a batch of {self.plan.batch_size} crops of {self.plan.crop}: use a smaller "
                "--batch-size (and --optim.accumulate to make up for it), a smaller --crop, or a smaller model."
            ) from None
        value = float(total.detach())
        if not math.isfinite(value):
            raise ConfigError(f"The loss became {value} at step {at.step}: use a smaller --lr (now {self.plan.lr:g}) or --precision fp32.")
        at.step, at.batch = at.step + 1, at.batch + 1
        before, at.elapsed = at.progress, self._elapsed()
        at.progress = self._progress()
        if last:
            for group in self.optimizer.param_groups:
                group["lr"] = self.schedule.at(before)
            if s.optim.clip > 0:
                self.world.clip(self.model, s.optim.clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if s.optim.ema != 0:
                self.average.update(self.net.state_dict().items(), at.progress, at.progress - before)
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _progress(self) -> float:
        """Share of the training that is done: of its epochs, or of its time (the first process's clock rules).

        A time budget keeps room for the last evaluation: as long as the one before took, before there was one a tenth.
        """
        if self.plan.minutes is not None:
            budget = 60 * self.plan.minutes
            last = (self.at.last_evaluation or EVALUATION_SHARE * budget) if self.val_records else 0.0
            done = self.at.elapsed / max(budget - last, 0.5 * budget)
            return self.world.agree(min(1.0, max(self.at.progress, done)))
        assert self.plan.epochs is not None
        return min(1.0, self.at.step / (self.plan.epochs * len(self.loader)))

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _evaluation_due(self) -> bool:
        if not self.val_records:
            return False
        if self.plan.evaluate_every is not None:
            return self.at.epoch % self.plan.evaluate_every == 0
        since = self.at.elapsed - self.at.evaluated_at  # a time budget: evaluation gets a tenth of it
        due = self.at.evaluated_at == 0 or since * EVALUATION_SHARE >= self.at.last_evaluation
        return self.world.agree(float(due)) > 0.5

    def _stopped_early(self) -> bool:
        if self.settings.stop_after and self.at.stale >= self.settings.stop_after:
            self.log.say(f"stopped early: {self.at.stale} evaluations without a better one")
            return True
        return False

    # -- scores and files ---------------------------------------------------------------------------------------------

    def _evaluate_and_keep(self) -> None:
        at = self.at
        self.scored.load_state_dict(self._weights())
        scores: dict[str, Any] = {}
        if self.val_records:
            begin = time.monotonic()
            wants_loss = self.settings.monitor == "loss"
            scores = evaluate_split(self.scored, self.dataset, self.val_records, self.task, self.preprocessing, device=self.device,
                                    precision=self.precision, workers=self.plan.workers, rank=self.world.rank,
                                    world=self.world.size, loss=self._loss if wants_loss else None)  # fmt: skip
            at.last_evaluation = time.monotonic() - begin
            key = self.task.primary
            value = -scores["loss"] if wants_loss else scores[key]
            value = -math.inf if math.isnan(value) else value
            better = value > at.best
            self.schedule.scored(value)
            at.best, at.stale = (value, 0) if better else (at.best, at.stale + 1)
            at.best_scores = {k: v for k, v in scores.items() if isinstance(v, float)} if better else at.best_scores
            at.evaluated_at = at.elapsed = self._elapsed()
            self.log.line("evaluation", epoch=at.epoch, step=at.step, seconds=at.elapsed, metrics=scores)
            left = f", {clock(at.elapsed / at.progress * (1 - at.progress))} left" if 0 < at.progress < 1 else ""
            self.log.say(f"epoch {at.epoch:4d}  {at.progress:4.0%}  {key} {scores[key]:.4f}{' *' if better else '  '}{left}")
        else:
            better = True
        card = self._card(scores)
        if self.world.first:
            save_model(self.out / "last.safetensors", self.scored, card)
            if better or not (self.out / "model.safetensors").exists():
                save_model(self.out / "model.safetensors", self.scored, card)
        self.world.wait()

    def _loss(self, output: Any, truths: Any) -> Tensor:
        return sum(criterion(output, truths, self.task, self.objective.recipe).values())  # type: ignore[return-value]

    def _weights(self) -> dict[str, Tensor]:
        """What is scored and saved: the running average, or the weights themselves where none is kept."""
        state = self.average.values if self.average.values else self.net.state_dict()
        return self.world.whole(state)

    def _card(self, scores: dict[str, Any]) -> ModelCard:
        s = self.settings
        training = {"scores": {k: plain(v) for k, v in scores.items() if isinstance(v, float)}, "epoch": self.at.epoch, "step": self.at.step,
                    "crop": list(self.plan.crop), "images": len(self.train_records), "minutes": round(self.at.elapsed / 60, 2),
                    "loss": s.loss, "seed": s.seed}  # fmt: skip
        return ModelCard(architecture=s.model, outputs=self.task.classes.channels, classes=self.dataset.classes, task=self.task.name,
                         preprocessing=self.preprocessing, options=self.options, training=training)  # fmt: skip

    def _log_step(self, losses: dict[str, float]) -> None:
        at, total = self.at, sum(losses.values())
        left = clock(at.elapsed / max(at.progress, 1e-9) * (1 - at.progress))
        best = f", best {self.task.primary} {at.best_scores[self.task.primary]:.3f}" if at.best_scores else ""
        self.log.progress(at.progress, f"epoch {at.epoch + 1}, loss {total:.3f}{best}, {left} left")
        self.log.line("step", epoch=at.epoch, step=at.step, loss=total, losses=losses, lr=self.schedule.at(at.progress), seconds=at.elapsed)

    def _write_run_json(self) -> None:
        """Everything needed to repeat the run."""
        if not self.world.first or (self.settings.resume and (self.out / "run.json").exists()):
            return
        facts = {
            "settings": to_dict(self.settings),
            "plan": asdict(self.plan),
            "task": self.task.name,
            "data": {"format": self.dataset.format, "classes": self.dataset.classes.to_dict(), "notes": list(self.dataset.notes),
                     "images": {name: len(records) for name, records in self.dataset.splits.items()},
                     "statistics": self.stats.to_dict()},
            "versions": current_versions(), "git": git_state(), "machine": describe(self.device),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        with atomic(self.out / "run.json") as part:
            part.write_text(json.dumps(plain(facts), indent=1), encoding="utf-8")

    def _save_state(self) -> None:
        """The state to resume from, whole or not at all."""
        self.at.elapsed, self.at.log_offset = self._elapsed(), self.log.offset
        tensors, numbers = checkpoint.optimizer_tensors(self.optimizer, self.net)
        parts = {"net": full_tensors(self.net.state_dict()), "average": full_tensors(self.average.values),
                 "optimizer": full_tensors(tensors), "random": checkpoint.random_tensors()}  # fmt: skip
        if self.world.first:
            flat = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
            position = {k: plain(v) for k, v in asdict(self.at).items()}
            checkpoint.write(self.out / "resume" / "state.safetensors", flat,
                             {"position": position, "optimizer": numbers, "schedule": plain(self.schedule.state()),
                              "averaged": self.average.steps, "scaler": self.world.scaler_state()})  # fmt: skip
        self._saved = time.monotonic()
        self.world.wait()

    def _restore(self, path: Path) -> None:
        tensors, numbers = checkpoint.read(path)

        def part(name: str) -> dict[str, Tensor]:
            return {k.split("/", 1)[1]: v for k, v in tensors.items() if k.startswith(f"{name}/")}

        load_full(self.net, part("net"))
        like = self.net.state_dict()
        self.average.values = {k: self.world.place(v, like[k]) for k, v in part("average").items()}
        self.average.steps = numbers["averaged"]
        checkpoint.restore_optimizer(self.optimizer, self.net, part("optimizer"), numbers["optimizer"], self.world.place)
        checkpoint.restore_random(part("random"))
        position = numbers["position"]
        position["best"] = -math.inf if position["best"] is None else position["best"]
        self.at = Position(**position)
        schedule = numbers["schedule"]
        self.schedule.restore({**schedule, "best": -math.inf if schedule["best"] is None else schedule["best"]})
        self.world.restore_scaler(numbers["scaler"])
        self.log.say(f"resumed   at step {self.at.step}, {self.at.progress:.0%} done")


def _merge_resumed(settings: TrainSettings) -> TrainSettings:
    """With --resume, the settings of the run itself; without, the out folder must not hold a run."""
    path = settings.out / "run.json"
    if not settings.resume:
        if path.exists():
            raise OutputError(f"{settings.out} holds a run already: choose another --out, or go on with it by --resume.")
        return settings
    if not path.exists():
        raise ConfigError(f"{settings.out} holds no run to resume (no run.json). Leave --resume out to start one.")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not the settings of a run ({error}).") from None
    own = from_dict(TrainSettings, {**stored, "resume": True, "weights": None}, source=str(path))
    if own.data.resolve() != settings.data.resolve():
        raise ConfigError(f"{settings.out} was trained on {own.data}, not on {settings.data}.")
    return from_dict(TrainSettings, {**to_dict(own), "out": str(settings.out), "data": str(settings.data)}, source=str(path))


def _resume_offset(settings: TrainSettings) -> int:
    path = settings.out / "resume" / "state.safetensors"
    if not (settings.resume and path.exists()):
        return 0
    return int(checkpoint.read(path)[1]["position"]["log_offset"])


@contextlib.contextmanager
def _interruptible() -> Iterator[Any]:
    """Ctrl-C and a polite kill set a flag that the loop reads; a second Ctrl-C stops at once."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        old = {sig: signal.signal(sig, ask) for sig in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: there is nothing to catch
        old = {}
    try:
        yield lambda: bool(asked)
    finally:
        for sig, handler in old.items():
            signal.signal(sig, handler)


def git_state() -> dict[str, Any] | None:
    """Commit and whether files differ from it, of the folder one works in; None outside a repository."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": bool(changed.strip())}
