"""The training loop: flat, read downwards. Batch, losses, backward, step, average, log, evaluate, save; again."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.config import TrainSettings, parse_options
from pixelwise.core.atomic import check_writable
from pixelwise.core.machine import describe, pick_device
from pixelwise.core.modelfile import ModelCard, load_weights_into, save_model
from pixelwise.core.registry import create_model
from pixelwise.core.sample import Batch
from pixelwise.core.types import Choice
from pixelwise.data.dataset import DataSet
from pixelwise.data.doctor import admit
from pixelwise.data.loader import make_loader
from pixelwise.data.statistics import Statistics, statistics
from pixelwise.data.transforms import Transform, training_transforms
from pixelwise.errors import ConfigError, DataError
from pixelwise.evaluation import evaluate_split
from pixelwise.losses.criterion import criterion
from pixelwise.objectives import Supervised
from pixelwise.tasks import make_task
from pixelwise.training import checkpoint, folder
from pixelwise.training import plan as plans
from pixelwise.training.agreement import note_agreement
from pixelwise.training.caching import decoded_bytes, open_cache
from pixelwise.training.checkpoint import Position, check_finite, seed_everything
from pixelwise.training.distributed import World, full_tensors, load_full
from pixelwise.training.folder import Run
from pixelwise.training.interrupt import interruptible
from pixelwise.training.log import Log, clock, many, numbers
from pixelwise.training.memory import memory_limit
from pixelwise.training.optim import Average, Schedule, make_optimizer
from pixelwise.training.plan import Plan

SAVE_EVERY = 120.0  # seconds between states to resume from
LOG_EVERY = 10  # batches between lines in log.jsonl
EVALUATION_SHARE = 0.1  # of a time budget, at most
GO_ON, SAVE, STOP = 0.0, 1.0, 2.0  # what the processes agree on after a step


class Training:
    """Everything a training holds, built once from the settings; `run` is the loop."""

    def __init__(self, settings: TrainSettings, transform: Transform | None = None) -> None:
        self.settings, self.resumed_plan = folder.resumed(settings)
        s, self.own_transform = self.settings, transform
        plans.check_words(s)
        self.out, self.state = s.out, folder.state_path(s.out)
        self.resumes = s.resume and self.state.exists()
        self.device = pick_device(s.device)
        self.choice = plans.suited(s, self.device, self.resumed_plan)
        self.precision = self.choice.precision
        self.world = World(self.device, self.precision, shard=s.shard)
        offset = int(checkpoint.read_numbers(self.state)["position"]["log_offset"]) if self.resumes else 0
        self.log = Log(self.out, speaks=self.world.first, tensorboard=s.tensorboard, offset=offset)
        seed_everything(s.seed)
        self._open_data()
        self._build_net()
        self._build_training()

    def _open_data(self) -> None:
        s, say = self.settings, self.log.say
        self.dataset: DataSet = admit(s.data, s.dataset.format, say, parse_options(s.dataset.options))
        wanted = s.dataset.train
        self.train_records = plans.labelled(self.dataset, wanted) if wanted in self.dataset.splits else ()
        if not self.train_records:
            there = ", ".join(self.dataset.splits) or "none"
            raise DataError(f"{s.data} has no split '{wanted}' with masks to train on (there are: {there}). Write "
                            "splits/train.txt, one name a line, or name another by --dataset.train.")  # fmt: skip
        self.val_records = plans.validation(self.dataset, s)
        if self.world.first:
            check_writable(self.out)
        say(f"data      {s.data} ({self.dataset.format}): {len(self.train_records)} to train on, "
            f"{len(self.val_records)} to validate")  # fmt: skip
        for note in self.dataset.notes:
            say(f"          {note}")
        if not self.val_records:
            plans.check_unscored(s)
            say(f"          the split '{s.dataset.val}' has no image: the last model is kept, none is chosen")
        name = self.dataset.default_task if s.task == "auto" else s.task
        self.task = make_task(name, self.dataset.classes)
        how = "as asked" if s.task != "auto" else "from the truth that is there (set --task)"
        say(f"task      {name}, {how}; {len(self.task.classes)} classes")
        plans.check_task(s, self.task)
        if name == "semantic":  # instance maps would be read for nothing
            self.dataset = self.dataset.without_instances()
            self.train_records = plans.labelled(self.dataset, s.dataset.train)
            self.val_records = plans.validation(self.dataset, s)
        self.stats: Statistics = statistics(self.dataset, s.dataset.train)

    def _build_net(self) -> None:
        s, say = self.settings, self.log.say
        options = plans.model_options(s, self.dataset, self.task)
        self.options = plans.filled_later(options)
        net = self._create(self.options if self.resumes else options)
        self.preprocessing = plans.preprocessing_of(s, self.dataset, self.stats, net, say)
        if s.weights is not None and not self.resumes:
            kept, dropped = load_weights_into(net, s.weights)
            what = f": {', '.join(dropped)}" if dropped else ""
            say(f"weights   {s.weights}: kept {len(kept)} tensors, dropped {len(dropped)}{what}")
        self.net = net.to(self.device).to(memory_format=torch.channels_last)
        self.scored = self._create(self.options).to(self.device).to(memory_format=torch.channels_last).eval()
        told = " ".join(f"{name}={value}" for name, value in options.items())
        say(f"model     {s.model} {told}, {sum(p.numel() for p in net.parameters()):,} parameters")
        plans.save_memory(s, net, say)

    def _create(self, options: dict[str, Any]) -> nn.Module:
        return create_model(self.settings.model, classes=self.task.classes.channels, **options)

    def _build_training(self) -> None:
        s = self.settings
        self.objective = Supervised(self.preprocessing, plans.recipe_of(s, self.task, self.stats))
        self.plan = self._decide()
        self._say_plan()
        self.model, self.optimizer = self.world.prepare(self.net, lambda n: make_optimizer(n, s.optim, self.plan.lr))
        self.schedule = Schedule(s.schedule, self.plan.lr)
        self.average = Average(s.optim.ema)
        self.at = Position()
        things = self.dataset.classes.is_thing.tolist()
        counts = self.stats.pixel_counts
        transform = training_transforms(s.transforms, crop=self.plan.crop, class_counts=counts, things=things,
                                        own=self.own_transform)  # fmt: skip
        need = decoded_bytes(self.dataset, self.stats, len(self.train_records))
        self.loader = make_loader(self.dataset, self.train_records, self.task, transform=transform,
                                  batch_size=self.plan.batch_size, seed=s.seed, shuffle=True, workers=self.plan.workers,
                                  rank=self.world.rank, world=self.world.size, balanced=s.dataset.balanced,
                                  drop_last=True, pin=self.device.type == "cuda", say=self.log.say,
                                  cache=open_cache(self.plan.cache, s, need, self.log.say))  # fmt: skip

    def _decide(self) -> Plan:
        """The run's own plan where it is gone on with; a new one else, that memory holds in every process."""
        s = self.settings
        if self.resumed_plan is not None:
            workers = self.resumed_plan.workers if s.workers is None else s.workers
            cache = self.resumed_plan.cache if s.cache == "auto" else s.cache
            return replace(self.resumed_plan, workers=workers, cache=cache, device=str(self.device), said=())
        plan = plans.make_plan(s, self.dataset, self.stats, len(self.train_records), self.choice)
        plan = plans.fit(plan, s, self.net, self.dataset, self.task, self.device, self._trial)
        return replace(plan, batch_size=int(-self.world.most(-plan.batch_size)))

    def _trial(self, net: nn.Module, batch: Batch) -> Tensor:
        with self.world.autocast():
            return sum(self.objective(net, batch, self.task, 0.0).values())  # type: ignore[return-value]

    def _say_plan(self) -> None:
        s, plan, size = self.settings, self.plan, self.world.size
        self.log.say(f"machine   {describe(self.device)}; {self.precision}, {size} process{'es' if size > 1 else ''}")
        self.log.say(f"          precision {self.precision}: {self.choice.reasons['precision']}")
        for line in plan.said:
            self.log.say(f"          {line}")
        length = many(plan.epochs, "epoch") if plan.epochs else f"{plan.minutes:g} minutes"
        crop = f"{plan.crop[0]}x{plan.crop[1]}"
        self.log.say(f"training  {length}, batch {plan.batch_size}, crop {crop}, lr {plan.lr:g}, "
                     f"loss {plans.mix_of(s) or 'of the net'}")  # fmt: skip

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> Run:
        """Trains to the end, or until Ctrl-C. Raises what data, memory and disk give reason to."""
        s = self.settings
        if self.world.first and not (s.resume and (self.out / "run.json").exists()):
            folder.write_run_json(self.out, s, self.plan, self.task, self.dataset, self.stats, self.world.size,
                                  self.device)  # fmt: skip
        if self.resumes:
            self._restore()
        elif self.world.rank:  # each process its own dropout
            seed_everything(s.seed + self.world.rank)
        at = self.at
        self._started, self._saved = time.monotonic() - at.elapsed, time.monotonic()
        with self.log, interruptible() as interrupted, folder.older_files_stay(s):
            while (at.progress < 1 or at.batch) and not self._stopped_early():
                if not self._run_epoch(interrupted):
                    return self._leave()
                at.epoch, at.batch = at.epoch + 1, 0
                if at.progress >= 1 or self._evaluation_due():
                    self._evaluate_and_keep()
                    self._save_state()
        self.loader.close()
        self.log.say(f"finished  {many(at.step, 'step')}, {many(at.epoch, 'epoch')} in {clock(at.elapsed)}")
        folder.say_thresholds(self.log.say, self.out / "model.safetensors", self.task)
        if self.world.first and self.precision == "bf16" and self.val_records:
            note_agreement(self.out / "model.safetensors", self.dataset, self.val_records, self.device, self.log.say)
        report = folder.write_report(self.out) if self.world.first and s.report else None
        return Run(self.out, self.out / "model.safetensors", at.best_scores or {}, True, report)

    def _run_epoch(self, interrupted: Callable[[], bool]) -> bool:
        """The batches of an epoch, from where the training is; False when it is to stop."""
        at = self.at
        self.loader.set_epoch(at.epoch, start=at.batch)
        for batch in self.loader:
            if at.progress >= 1:
                break
            losses, stepped = self._step(batch.to(self.device))
            self._show(losses)
            if not stepped:  # summed gradients are in no state: there is nothing to go on from
                continue
            due = self.world.first and time.monotonic() - self._saved > SAVE_EVERY
            wish = self.world.most(STOP if interrupted() else SAVE if due else GO_ON)
            if wish == SAVE:
                self._save_state()
            if wish == STOP:
                return False
        return True

    def _step(self, batch: Batch) -> tuple[dict[str, float], bool]:
        """One batch: losses, backward and, when enough gradients are summed, a step of the optimiser."""
        at, s = self.at, self.settings
        first = at.batch - at.batch % s.optim.accumulate  # of a step; an epoch's last one may have fewer batches
        summed = min(s.optim.accumulate, len(self.loader) - first)
        stepped = at.batch + 1 == first + summed
        self.model.train()
        alone = contextlib.nullcontext() if stepped else self.world.no_sync(self.model)
        with memory_limit(plans.step_advice(self.plan, s)), alone:
            with self.world.autocast():
                losses = self.objective(self.model, batch, self.task, at.progress)
            total: Tensor = sum(losses.values())  # type: ignore[assignment]
            self.world.backward(total / summed)
        value = float(total.detach())
        if not math.isfinite(value):
            raise ConfigError(f"The loss became {value} at step {at.step}: use a smaller --lr (now {self.plan.lr:g}) "
                              "or --precision fp32.")  # fmt: skip
        at.step, at.batch = at.step + 1, at.batch + 1
        before, at.elapsed = at.progress, self._elapsed()
        at.progress = self._progress()
        if stepped:
            for group in self.optimizer.param_groups:
                group["lr"] = self.schedule.at(before)
            if s.optim.clip > 0:
                self.world.clip(self.model, s.optim.clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if s.optim.ema != 0:
                self.average.update(self.net.state_dict().items(), at.progress, at.progress - before)
        return {name: float(loss.detach()) for name, loss in losses.items()}, stepped

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

    def _leave(self) -> Run:
        """After Ctrl-C: everything saved, and how to go on."""
        self._save_state()
        self.scored.load_state_dict(self._weights())
        if self.world.first:
            save_model(self.out / "last.safetensors", self.scored, self._card({}))
        self.loader.close()
        how = folder.how_to_go_on(self.settings)
        self.log.say(f"stopped   at step {self.at.step}, {self.at.progress:.0%} done; go on with: {how}")
        return Run(self.out, self.out / "last.safetensors", self.at.best_scores or {}, False)

    # -- scores and files ---------------------------------------------------------------------------------------------

    def _evaluate_and_keep(self) -> None:
        """Scores the averaged weights, saves them as the last model and, if they are, as the best."""
        weights = self._weights()
        check_finite(weights, self.plan.lr)
        self.scored.load_state_dict(weights)
        scores: dict[str, Any] = {}
        choice: Choice | None = None
        better = True
        if self.val_records:
            begin, wants_loss = time.monotonic(), self.settings.monitor == "loss"
            with memory_limit("An image to validate is too much at full size: use smaller images or a smaller model."):
                scores = evaluate_split(self.scored, self.dataset, self.val_records, self.task, self.preprocessing,
                                        device=self.device, precision=self.precision, workers=self.plan.workers,
                                        rank=self.world.rank, world=self.world.size, choose=True,
                                        loss=self._loss if wants_loss else None)  # fmt: skip
            self.at.last_evaluation = time.monotonic() - begin
            choice = scores.pop("choice", None)
            self.at.thresholds = dict(choice.thresholds) if choice else {}
            better = self._judge(scores)
        card = self._card(scores, choice)
        if self.world.first:
            save_model(self.out / "last.safetensors", self.scored, card)
            if better or not (self.out / "model.safetensors").exists():
                save_model(self.out / "model.safetensors", self.scored, card)
        self.world.wait()

    def _judge(self, scores: dict[str, Any]) -> bool:
        """Whether these are the best scores so far; the schedule, the log and the screen hear of them."""
        at, key = self.at, self.task.primary
        value = -scores["loss"] if self.settings.monitor == "loss" else scores[key]
        value = -math.inf if math.isnan(value) else float(value)
        better = value > at.best
        self.schedule.scored(value)
        at.best, at.stale = (value, 0) if better else (at.best, at.stale + 1)
        if better:
            at.best_scores = numbers(scores)
        at.evaluated_at = at.elapsed = self._elapsed()
        self.log.line("evaluation", epoch=at.epoch, step=at.step, seconds=at.elapsed, metrics=scores)
        left = f", {clock(at.elapsed / at.progress * (1 - at.progress))} left" if 0 < at.progress < 1 else ""
        loss = f"  loss {scores['loss']:.4f}" if "loss" in scores else ""
        star = " *" if better else "  "
        self.log.say(f"epoch {at.epoch:4d}  {at.progress:4.0%}  {key} {scores[key]:.4f}{loss}{star}{left}")
        return better

    def _loss(self, output: Any, truths: Any) -> Tensor:
        return sum(criterion(output, truths, self.task, self.objective.recipe).values())  # type: ignore[return-value]

    def _weights(self) -> dict[str, Tensor]:
        """What is scored and saved: the running average, or the weights themselves where none is kept."""
        return self.world.whole(self.average.values or self.net.state_dict())

    def _card(self, scores: dict[str, Any], choice: Choice | None = None) -> ModelCard:
        s, at = self.settings, self.at
        training = {"scores": numbers(scores), "epoch": at.epoch, "step": at.step, "crop": list(self.plan.crop),
                    "images": len(self.train_records), "minutes": round(at.elapsed / 60, 2),
                    "loss": str(plans.mix_of(s) or ""), "seed": s.seed}  # fmt: skip
        if choice is not None:
            training["choice"] = asdict(choice)
        return ModelCard(architecture=s.model, outputs=self.task.classes.channels, classes=self.dataset.classes,
                         task=self.task.name, preprocessing=self.preprocessing, options=self.options,
                         thresholds=dict(at.thresholds), training=training)  # fmt: skip

    def _show(self, losses: dict[str, float]) -> None:
        """The bar at each batch, a line in the log at some."""
        at, total = self.at, sum(losses.values())
        left = clock(at.elapsed / max(at.progress, 1e-9) * (1 - at.progress))
        key = self.task.primary
        best = f", best {key} {at.best_scores[key]:.3f}" if at.best_scores and key in at.best_scores else ""
        self.log.progress(at.progress, f"epoch {at.epoch + 1}, loss {total:.3f}{best}, {left} left")
        if at.step % LOG_EVERY == 0:
            lr = self.optimizer.param_groups[0]["lr"]
            self.log.line("step", epoch=at.epoch, step=at.step, loss=total, losses=losses, lr=lr, seconds=at.elapsed)

    def _save_state(self) -> None:
        """The state to resume from, whole or not at all."""
        at = self.at
        at.elapsed, at.log_offset = self._elapsed(), self.log.offset
        tensors, numbers = checkpoint.optimizer_tensors(self.optimizer, self.net)
        parts = {"net": full_tensors(self.net.state_dict()), "average": full_tensors(self.average.values),
                 "optimizer": full_tensors(tensors)}  # fmt: skip
        parts |= {f"random{rank}": states for rank, states in enumerate(self.world.gather(checkpoint.random_tensors()))}
        if self.world.first:
            flat = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
            place = {**self.loader.state(), "epoch": at.epoch, "step": at.batch}
            checkpoint.write(self.state, flat, {
                "position": asdict(at), "loader": place, "optimizer": numbers, "schedule": self.schedule.state(),
                "averaged": self.average.steps,
                "lr": self.optimizer.param_groups[0]["lr"], "scaler": self.world.scaler_state()})  # fmt: skip
        self._saved = time.monotonic()
        self.world.wait()

    def _restore(self) -> None:
        tensors, numbers = checkpoint.read(self.state)
        place = self.world.place

        def part(name: str) -> dict[str, Tensor]:
            return {k.split("/", 1)[1]: v for k, v in tensors.items() if k.startswith(f"{name}/")}

        self.loader.restore(numbers["loader"])  # first: it refuses other data and another number of processes
        load_full(self.net, part("net"))
        like = self.net.state_dict()
        self.average.values = {k: place(v, like[k]) for k, v in part("average").items()}
        self.average.steps = numbers["averaged"]
        checkpoint.restore_optimizer(self.optimizer, self.net, part("optimizer"), numbers["optimizer"], place)
        checkpoint.restore_random(part(f"random{self.world.rank}"))
        self.schedule.restore(numbers["schedule"])
        for group in self.optimizer.param_groups:
            group["lr"] = numbers["lr"]
        self.world.restore_scaler(numbers["scaler"])
        self.at = Position(**numbers["position"])
        self.log.say(f"resumed   at step {self.at.step}, {self.at.progress:.0%} done")
