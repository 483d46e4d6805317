"""The training loop: batches with artificial defects, checkpoints, and a record of the losses.

Every batch is a function of (seed, phase, step), and a checkpoint holds the weights, batch-norm statistics and the
optimiser's state, so the weights at the end depend on neither where a run was stopped nor how often. They do depend on
the number of threads and the machine, through the order of floating-point sums.
"""

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from ndp_rt.errors import RunError
from ndp_rt.export.data.batches import Batch, draw_batches
from ndp_rt.export.models.family import Phase, TrainData, Training
from ndp_rt.export.training.checkpoint import load_tensors, pack_state, save_tensors, unpack_modules, unpack_optimizer
from ndp_rt.export.training.progress import Reporter, describe_losses, plot_losses, read_losses, write_losses
from ndp_rt.export.training.run_folder import CHECKPOINT_FILE, WEIGHTS_FILE, RunFolder
from ndp_rt.export.training.settings import TrainSettings

ROW_STEPS = 25  # steps whose mean losses make one row of losses.csv


class Interrupted(KeyboardInterrupt):
    """Ctrl-C (or SIGTERM) during training, raised after the state was saved."""


@dataclass(kw_only=True)
class TrainState:
    """Where a run stands; the header of a checkpoint holds it."""

    phase: int = 1
    step: int = 0  # done in this phase
    elapsed_s: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)  # of the losses since the last row
    steps_done: list[int] = field(default_factory=list)  # in the phases before this one
    capped_phase: int = 0  # the last phase that the time limit cut short
    facts: dict[str, Any] = field(default_factory=dict)  # what the family's end_phase returned

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "TrainState":
        """Return the state that to_json wrote, now or when NDP-Net was the only family."""
        values = dict(document)
        if "phase_1_steps" in values:
            steps = values.pop("phase_1_steps")
            values["steps_done"] = [steps] if values["phase"] == 2 else []
            values["facts"] = {"reference_name": values.pop("reference_name")}
        return cls(**values)


def learning_rate(step: int, phase: int, settings: TrainSettings) -> float:
    """Return the learning rate of a step, counted from 0 in its phase."""
    if settings.schedule == "constant":
        return settings.learning_rate
    count = settings.phase_steps[phase - 1]
    rise = min(1.0, (step + 1) / max(1, min(100, count // 10)))
    cosine = 0.5 + 0.5 * float(torch.cos(torch.tensor(torch.pi * step / count, dtype=torch.float64)))
    return settings.learning_rate * rise * (0.01 + 0.99 * cosine)


class Trainer:
    """One training run; call train() once.

    Args:
        folder: where everything is written; made before.
        training: loaded.
        data: what it was loaded with.
        reporter: shows the progress.
        minutes: time limit over the whole run, resumed parts included; each phase gets its steps' share of it. A
            phase that reaches its limit ends there, and the run's record says so: such a run repeats exactly only
            from its checkpoints. None: no limit.
        checkpoint_interval_s: time between two checkpoints.
    """

    def __init__(
        self,
        folder: RunFolder,
        training: Training,
        data: TrainData,
        reporter: Reporter,
        *,
        minutes: float | None = None,
        checkpoint_interval_s: float = 30.0,
    ) -> None:
        self.folder, self.training, self.data, self.reporter = folder, training, data, reporter
        self.settings = training.settings
        self.minutes, self.checkpoint_interval_s = minutes, checkpoint_interval_s
        self.state = TrainState()
        self.rows: list[dict[str, float | int]] = []
        self._phase: Phase | None = None
        self._stop_signal: int | None = None

    @property
    def phase(self) -> Phase:
        """The phase that the run is in, begun."""
        if self._phase is None:
            self._phase = self.training.begin_phase(self.state.phase)
        return self._phase

    def resume(self) -> None:
        """Take up the state of the run folder's checkpoint.

        Raises:
            RunError: there is none, or it is of other settings or another network.
        """
        tensors, header = load_tensors(self.folder / CHECKPOINT_FILE)
        if header["settings"] != self.settings.to_json():
            changed = [k for k, v in self.settings.to_json().items() if header["settings"].get(k) != v]
            raise RunError(
                f"{self.folder.path} was trained with other settings ({', '.join(changed)}). Resume with the same "
                "options, or train into another folder."
            )
        self.state = TrainState.from_json(header["state"])
        unpack_modules(self.training.modules, tensors)
        unpack_optimizer(self.phase.optimizer, tensors)
        done = (self.state.phase, self.state.step)
        rows = read_losses(self.folder / "losses.csv")
        self.rows = [row for row in rows if (row["phase"], row["step"]) <= done]

    def train(self) -> dict[str, Any]:
        """Run what is left of the phases, write the final weights, and return what was reached, for run.json.

        Raises:
            RunError: a loss is no longer a number.
            Interrupted: Ctrl-C or SIGTERM; the checkpoint was written.
            StorageError: a file could not be written.
        """
        try:
            with self._catch_signals():
                for phase in range(self.state.phase, len(self.settings.phase_steps) + 1):
                    if phase > self.state.phase:
                        self._begin_next_phase()
                    if phase != self.state.capped_phase:
                        self._run_phase(phase)
                self._end_phase()
        finally:
            self.reporter.stop()
        return self._finish()

    def _begin_next_phase(self) -> None:
        self._end_phase()
        done = self.state
        self.state = TrainState(
            phase=done.phase + 1,
            elapsed_s=done.elapsed_s,
            steps_done=[*done.steps_done, done.step],
            capped_phase=done.capped_phase,
            facts=done.facts,
        )
        self._phase = None

    def _end_phase(self) -> None:
        self.state.facts |= self.training.end_phase(self.state.phase, self.folder, self.reporter.say)

    def _run_phase(self, phase: int) -> None:
        settings, state = self.settings, self.state
        self.reporter.start(phase, state.step, settings.phase_steps[phase - 1])
        saved_at = mark = time.monotonic()
        draw = self.training.draw_example
        images = self.data.images if self.phase.images is None else self.phase.images
        drawn = draw_batches(images, self.data.textures, settings, phase, state.step, draw)
        for batch in drawn:
            losses = self._step(phase, batch)
            now = time.monotonic()
            state.elapsed_s, mark = state.elapsed_s + now - mark, now
            self._record(losses)
            self.reporter.advance(state.step, losses)
            if self._stop_signal is not None:
                self.save()
                raise Interrupted(self._stop_signal)
            if self._is_over_time(phase):
                state.capped_phase = phase
                break
            if now - saved_at >= self.checkpoint_interval_s:
                self.save()
                saved_at = time.monotonic()
        drawn.close()
        self.save()

    def _step(self, phase: int, batch: Batch) -> dict[str, float]:
        """Do one step of training; return its losses."""
        settings, optimizer = self.settings, self.phase.optimizer
        rate = learning_rate(self.state.step, phase, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        tensors = (self._to_tensor(array) for array in (batch.good, batch.defective, batch.mask))
        with torch.autocast(torch.device(settings.device).type, torch.bfloat16, enabled=settings.precision == "bf16"):
            losses = self.phase.find_losses(*tensors)
        total = torch.stack(list(losses.values())).sum()
        values = {name: loss.item() for name, loss in losses.items()}
        if not math.isfinite(sum(values.values())):
            raise RunError(
                f"the loss is no longer a number at step {self.state.step + 1} of phase {phase} "
                f"({describe_losses(values)}). The last checkpoint is kept. Train again with a lower --learning-rate."
            )
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        self.state.step += 1
        return values

    def _to_tensor(self, array: Any) -> Tensor:
        tensor = torch.from_numpy(array).to(self.settings.device)
        return tensor.contiguous(memory_format=torch.channels_last)

    def _record(self, losses: Mapping[str, float]) -> None:
        """Add one step's losses to the sums, and a row when enough have come."""
        state = self.state
        for name, value in losses.items():
            state.sums[name] = state.sums.get(name, 0.0) + value
        if state.step % ROW_STEPS == 0 or state.step == self.settings.phase_steps[state.phase - 1]:
            count = (state.step - 1) % ROW_STEPS + 1
            means = {name: value / count for name, value in state.sums.items()}
            rate = learning_rate(state.step - 1, state.phase, self.settings)
            self.rows.append({"phase": state.phase, "step": state.step, "learning_rate": rate, **means})
            state.sums = {}

    def _is_over_time(self, phase: int) -> bool:
        if self.minutes is None:
            return False
        steps = self.settings.phase_steps
        return self.state.elapsed_s >= 60.0 * self.minutes * sum(steps[:phase]) / sum(steps)

    def save(self) -> None:
        """Write the checkpoint and the losses so far."""
        header = {"settings": self.settings.to_json(), "state": self.state.to_json()}
        write_losses(self.folder / "losses.csv", self.rows)
        tensors = pack_state(self.training.modules, self.phase.optimizer)
        save_tensors(self.folder / CHECKPOINT_FILE, tensors, header)

    def _finish(self) -> dict[str, Any]:
        model = self.training.modules["model"].eval()
        save_tensors(self.folder / WEIGHTS_FILE, model.state_dict(), {"settings": self.settings.to_json()})
        plot_losses(self.folder / "curve.png", self.rows)
        return {
            "finished": True,
            "steps_done": [*self.state.steps_done, self.state.step],
            "is_cut_short_by_time_limit": self.state.capped_phase > 0,
            "time_limit_minutes": self.minutes,
            "elapsed_s": round(self.state.elapsed_s, 1),
            **self.training.describe(self.state.facts),
            "losses": self.rows[-1] if self.rows else {},
        }

    @contextmanager
    def _catch_signals(self) -> Iterator[None]:
        """Turn the first Ctrl-C or SIGTERM into a stop after the current step; a second one acts as usual.

        A signal that is ignored stays so: a shell sets that for what a script starts in the background.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def remember(number: int, _frame: FrameType | None) -> None:
            self._stop_signal = number
            signal.signal(number, before[number])

        handlers = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
        for number in before:
            signal.signal(number, remember)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
