"""Trains NDP-Net: phases 1 and 2 over artificial defects, into a run folder; a killed run resumes to the same weights.

Every batch is a function of (seed, phase, step), and a checkpoint holds the weights, batch-norm statistics and Adam's
state, so the weights at the end depend on neither where a run was stopped nor how often. They do depend on the number
of threads and the machine, through the order of floating-point sums.
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
from ndp_rt.export.batches import Batch, batches
from ndp_rt.export.checkpoint import load_tensors, pack_state, save_tensors, unpack_model, unpack_optimizer
from ndp_rt.export.curves import plot_losses, read_losses, write_losses
from ndp_rt.export.distil import Distiller
from ndp_rt.export.images import GoodImages, to_network
from ndp_rt.export.models.ndpnet import NDPNet
from ndp_rt.export.phases import learning_rate, phase_losses, start_phase
from ndp_rt.export.progress import Reporter, describe_losses
from ndp_rt.export.reference_image import describe_images, nearest_to_others
from ndp_rt.export.run_dir import CHECKPOINT_FILE, RunDir, write_reference
from ndp_rt.export.settings import TrainSettings
from ndp_rt.export.vgg import VGGFeatures
from ndp_rt.images.textures import TextureImages

ROW_STEPS = 25  # steps whose mean losses make one row of losses.csv


class Interrupted(KeyboardInterrupt):
    """Ctrl-C (or SIGTERM) during training, raised after the state was saved."""


@dataclass(frozen=True, kw_only=True)
class TrainInputs:
    """What a training run works on."""

    images: GoodImages
    image_names: tuple[str, ...]
    textures: TextureImages
    vgg: VGGFeatures | None = None
    reference: GoodImages | None = None  # one image given by hand; None: chosen from `images`
    reference_name: str | None = None
    teacher: NDPNet | None = None  # on the run's device; with settings.distil


@dataclass(kw_only=True)
class TrainState:
    """Where a run stands; what a checkpoint's header holds."""

    phase: int = 1
    step: int = 0  # done in this phase
    elapsed_s: float = 0.0
    reference_name: str | None = None
    sums: dict[str, float] = field(default_factory=dict)  # of the losses since the last row
    phase_1_steps: int = 0  # done when phase 2 began
    capped_phase: int = 0  # the last phase that the time limit cut short

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


class Trainer:
    """One training run; call train() once.

    Args:
        run_dir: where everything is written; made before.
        settings: all that decides the weights.
        inputs: images, textures, VGG, reference, teacher.
        reporter: shows the progress.
        minutes: time limit over the whole run, resumed parts included; each phase gets its steps' share of it. A
            phase that reaches its limit ends there, and the run's record says so: such a run repeats exactly only
            from its checkpoints. None: no limit.
        checkpoint_interval_s: time between two checkpoints.
    """

    def __init__(
        self,
        run_dir: RunDir,
        settings: TrainSettings,
        inputs: TrainInputs,
        reporter: Reporter,
        *,
        minutes: float | None = None,
        checkpoint_interval_s: float = 30.0,
    ) -> None:
        self.run_dir, self.settings, self.inputs, self.reporter = run_dir, settings, inputs, reporter
        self.minutes, self.checkpoint_interval_s = minutes, checkpoint_interval_s
        self.state = TrainState()
        self.rows: list[dict[str, float | int]] = []
        self.model = NDPNet(settings.width, settings.height_px, settings.width_px).to(settings.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # After the network, whose first weights are then the same with a teacher and without.
        self.distiller = self._make_distiller()
        self.optimizer = self._make_optimizer(1)
        self._stop_signal: int | None = None

    def resume(self) -> None:
        """Take up the state of the run folder's checkpoint.

        Raises:
            RunError: there is none, or it doesn't fit.
        """
        tensors, header = load_tensors(self.run_dir / CHECKPOINT_FILE)
        if header["settings"] != self.settings.to_json():
            changed = [k for k, v in self.settings.to_json().items() if header["settings"].get(k) != v]
            raise RunError(
                f"{self.run_dir.path} was trained with other settings ({', '.join(changed)}). Resume with the same "
                "options, or train into another folder."
            )
        self.state = TrainState(**header["state"])
        unpack_model(self.model, tensors)
        if self.distiller is not None:
            self.distiller.unpack(tensors)
        self.optimizer = self._make_optimizer(self.state.phase)
        unpack_optimizer(self.optimizer, tensors)
        done = (self.state.phase, self.state.step)
        rows = read_losses(self.run_dir / "losses.csv")
        self.rows = [row for row in rows if (row["phase"], row["step"]) <= done]

    def train(self) -> dict[str, Any]:
        """Run what is left of both phases, write the final weights, and return what was reached, for run.json.

        Raises:
            RunError: a loss is no longer a number.
            Interrupted: Ctrl-C or SIGTERM; the checkpoint was written.
            StorageError: a file could not be written.
        """
        try:
            with self._catch_signals():
                for phase in (1, 2):
                    if phase > self.state.phase:
                        self._enter_phase_2()
                    if phase == self.state.phase and phase != self.state.capped_phase:
                        self._run_phase(phase)
        finally:
            self.reporter.stop()
        return self._finish()

    def _make_distiller(self) -> Distiller | None:
        teacher, settings = self.inputs.teacher, self.settings
        assert (teacher is None) == (settings.distil is None)
        if teacher is None or settings.distil is None:
            return None
        return Distiller(teacher, settings.width, settings.distil)

    def _make_optimizer(self, phase: int) -> torch.optim.Optimizer:
        parameters = start_phase(self.model, phase, self.settings)
        if self.distiller is not None:
            parameters += self.distiller.parameters(phase)
        return torch.optim.Adam(
            parameters, lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay, foreach=False
        )

    def _run_phase(self, phase: int) -> None:
        settings, state = self.settings, self.state
        step_count = settings.phase_steps[phase - 1]
        self.reporter.start(phase, state.step, step_count)
        saved_at = mark = time.monotonic()
        drawn = batches(self.inputs.images, self.inputs.textures, settings, phase, state.step)
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
        settings = self.settings
        rate = learning_rate(self.state.step, phase, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        good, defective, mask = (self._to_tensor(x) for x in (batch.good, batch.defective, batch.mask))
        with torch.autocast(torch.device(settings.device).type, torch.bfloat16, enabled=settings.precision == "bf16"):
            losses = phase_losses(self.model, phase, good, defective, mask, self.inputs.vgg, settings, self.distiller)
        total = torch.stack(list(losses.values())).sum()
        values = {name: loss.item() for name, loss in losses.items()}
        if not math.isfinite(sum(values.values())):
            raise RunError(
                f"the loss is no longer a number at step {self.state.step + 1} of phase {phase} "
                f"({describe_losses(values)}). The last checkpoint is kept. Train again with a lower --learning-rate."
            )
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
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
        share = 1.0 if phase == 2 else steps[0] / sum(steps)
        return self.state.elapsed_s >= 60.0 * self.minutes * share

    def _enter_phase_2(self) -> None:
        """Choose the reference with phase 1's encoder, and set up phase 2."""
        inputs = self.inputs
        done = self.state
        self.state = TrainState(
            phase=2, elapsed_s=done.elapsed_s, phase_1_steps=done.step, capped_phase=done.capped_phase
        )
        self.optimizer = self._make_optimizer(2)
        if inputs.reference is not None:
            image, name = inputs.reference[0], inputs.reference_name
        else:
            index = nearest_to_others(describe_images(self.model, inputs.images, self.settings.device))
            image, name = inputs.images[index], inputs.image_names[index]
        self.model.set_reference(self._to_tensor(to_network([image])))
        write_reference(self.run_dir, image)
        self.state.reference_name = name
        self.reporter.say(f"reference image: {name}")

    def save(self) -> None:
        """Write the checkpoint and the losses so far."""
        header = {"settings": self.settings.to_json(), "state": self.state.to_json()}
        write_losses(self.run_dir / "losses.csv", self.rows)
        tensors = pack_state(self.model, self.optimizer)
        if self.distiller is not None:
            tensors |= self.distiller.pack()
        save_tensors(self.run_dir / CHECKPOINT_FILE, tensors, header)

    def _finish(self) -> dict[str, Any]:
        self.model.eval()
        save_tensors(self.run_dir / "model.safetensors", self.model.state_dict(), {"settings": self.settings.to_json()})
        plot_losses(self.run_dir / "curve.png", self.rows)
        return {
            "finished": True,
            "steps_done": [self.state.phase_1_steps, self.state.step],
            "is_cut_short_by_time_limit": self.state.capped_phase > 0,
            "time_limit_minutes": self.minutes,
            "elapsed_s": round(self.state.elapsed_s, 1),
            "reference": {
                "name": self.state.reference_name,
                "rule": "given by hand" if self.inputs.reference is not None else "nearest the mean of the others",
            },
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
