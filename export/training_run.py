"""Starts or resumes a training run from what the command line gives: folders in, a run folder out."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ndp_rt.errors import DataError, InputError, RunError
from ndp_rt.export.data import DataSplit, fingerprint_files, split_data
from ndp_rt.export.images import GoodImages, textures_from_data
from ndp_rt.export.progress import Reporter
from ndp_rt.export.run_dir import RunDir, check_device, describe_run, open_run, seed_torch
from ndp_rt.export.settings import PAPER_EPOCHS, DistilSettings, TrainSettings, preset_settings, steps_of_epochs
from ndp_rt.export.teacher import Teacher, find_teacher, load_teacher
from ndp_rt.export.train import Trainer, TrainInputs
from ndp_rt.export.vgg import VGGFeatures, load_vgg
from ndp_rt.images.textures import TextureImages, list_textures, load_textures
from ndp_rt.program.manifest import InputContract


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What `ndp-rt train` was asked for.

    `changes` are settings that differ from the preset's. `epochs` sets the steps from the number of images; None with
    no steps among the changes: preset paper's 400 and 200 epochs, preset edge's own steps.
    """

    data: Path
    run: Path
    preset: str
    changes: dict[str, Any]
    textures: Path | None = None
    vgg: Path | None = None
    reference: Path | None = None
    teacher: Path | None = None  # a finished run's folder, or the weights of one in phase 2
    epochs: tuple[int, int] | None = None
    minutes: float | None = None
    resumes: bool = False
    checkpoint_interval_s: float = 30.0
    command: str = "ndp-rt train"


def train_run(request: TrainRequest, reporter: Reporter) -> RunDir:
    """Train as asked, and return the finished run's folder.

    Raises:
        DataError, ImageFileError: the images don't do.
        DeviceError: PyTorch cannot use the device.
        InputError: a setting, the VGG file or the teacher doesn't.
        RunError: the teacher is no trained run, the folder holds another run, or none to resume, or the loss is no
            longer a number.
        StorageError: a file could not be written.
        KeyboardInterrupt: Ctrl-C; the run can be resumed.
    """
    request = _with_distillation(request)
    settings = preset_settings(request.preset, **request.changes)
    teacher = find_teacher(request.teacher, settings.contract, request.run) if request.teacher is not None else None
    run_dir = RunDir(path=request.run)
    has_run = (run_dir / "run.json").is_file()
    if has_run and not request.resumes:
        raise RunError(f"{request.run} holds a run already. Give --resume to go on with it, or another folder.")
    check_device(settings.device)
    split = split_data(request.data, holdout=settings.holdout, seed=settings.seed)
    _check_run_folder(request, split)
    settings = _with_steps(settings, request, len(split.training))
    reporter.say(
        f"{len(split.training)} good images to train on, {len(split.calibration)} held out for calibration; preset "
        f"{settings.preset}, width {settings.width}, {settings.phase_steps[0]} + {settings.phase_steps[1]} steps"
    )
    seed_torch(settings)
    document = _describe(request, settings, split) | {"teacher": teacher and teacher.to_json()}
    if has_run:
        document = _check_same(run_dir, document, request.command)
        if document["finished"]:
            reporter.say(f"{request.run} has finished already")
            return run_dir
    if teacher is not None:
        _announce_teacher(teacher, document, reporter)
    inputs = _load_inputs(request, settings, split, teacher, reporter)
    trainer = Trainer(
        run_dir,
        settings,
        inputs,
        reporter,
        minutes=request.minutes,
        checkpoint_interval_s=request.checkpoint_interval_s,
    )
    if has_run and run_dir.has_checkpoint:
        trainer.resume()
        reporter.say(f"resuming at step {trainer.state.step} of phase {trainer.state.phase}")
    run_dir.create()
    data_files = document.pop("data_files", None)
    if data_files is not None:
        run_dir.write_json("data.json", data_files)
        run_dir.write_json("calibration.json", [str(path.absolute()) for path in split.calibration])
    run_dir.write_json("run.json", document)
    run_dir.write_json("run.json", document | trainer.train())
    return run_dir


def _with_distillation(request: TrainRequest) -> TrainRequest:
    """Return the request with the settings of distillation, those given or the defaults, where there is a teacher.

    Raises:
        InputError: settings of distillation without a teacher.
    """
    given: dict[str, float] = request.changes.get("distil", {})
    if request.teacher is not None:
        return dataclasses.replace(request, changes={**request.changes, "distil": DistilSettings(**given)})
    if given:
        options = {"maps": "--distil-weight", "features": "--distil-features"}
        came = " and ".join(f"{options[name]} {value:g}" for name, value in given.items())
        raise InputError(f"{came} came without --teacher. Give the trained run to learn from, or leave it out.")
    return request


def _check_run_folder(request: TrainRequest, split: DataSplit) -> None:
    """Keep the run's own pictures apart from images that are read.

    Raises:
        RunError: the run's folder is that of the good images, or lies in that of the textures.
    """
    run = request.run.resolve()
    if run in {path.parent.resolve() for path in (*split.training, *split.calibration)}:
        raise RunError(
            f"{request.run} holds the good images; the run's own pictures would be taken for more of them. Give "
            "another folder."
        )
    if request.textures is not None and run.is_relative_to(request.textures.resolve()):
        raise RunError(
            f"{request.run} lies in --textures {request.textures}, whose images are all taken; the run's own pictures "
            "would be among them. Give another folder."
        )


def _with_steps(settings: TrainSettings, request: TrainRequest, image_count: int) -> TrainSettings:
    """Return the settings with the steps that epochs mean, where epochs decide."""
    epochs = request.epochs
    if epochs is None and request.preset == "paper" and "phase_steps" not in request.changes:
        epochs = PAPER_EPOCHS
    if epochs is None:
        return settings
    steps = steps_of_epochs(epochs, image_count, settings.batch_size)
    return preset_settings(request.preset, **{**request.changes, "phase_steps": steps})


def _describe(request: TrainRequest, settings: TrainSettings, split: DataSplit) -> dict[str, Any]:
    """Return run.json for a new run, with the file lists for data.json under data_files."""
    training, training_sha256 = fingerprint_files(split.root, split.training)
    calibration, calibration_sha256 = fingerprint_files(split.root, split.calibration)
    texture_paths = list_textures(request.textures) if request.textures is not None else []
    textures, textures_sha256 = fingerprint_files(request.textures or split.root, texture_paths)
    facts: dict[str, Any] = {
        "data": {
            "root": str(split.root.absolute()),
            "layout": split.layout,
            "training_image_count": len(training),
            "training_sha256": training_sha256,
            "calibration_image_count": len(calibration),
            "calibration_sha256": calibration_sha256,
        },
        "textures": {
            "root": str(request.textures.absolute()) if request.textures is not None else None,
            "image_count": len(textures),
            "sha256": textures_sha256 if textures else None,
        },
        "vgg": _describe_file(request.vgg),
        "reference_file": _describe_file(request.reference),
        "data_files": {"training": training, "calibration": calibration, "textures": textures},
    }
    return describe_run(settings, request.data.absolute().name, request.command, facts)


def _describe_file(path: Path | None) -> dict[str, object] | None:
    """Return the name and SHA-256 of a file that was given, None where none was."""
    if path is None:
        return None
    (row,), _ = fingerprint_files(path.parent, [path])
    return {"name": path.name, "sha256": row["sha256"]}


def _check_same(run_dir: RunDir, wanted: dict[str, Any], command: str) -> dict[str, Any]:
    """Return the run.json of the run to resume, after checking that it is the one asked for.

    Raises:
        RunError: other settings, or other data than then.
    """
    _, found = open_run(run_dir.path)
    changed = [key for key, value in wanted["settings"].items() if found["settings"].get(key) != value]
    then, now = found.get("teacher"), wanted["teacher"]  # absent in a run of the time before there were teachers
    if (then and then["sha256"]) != (now and now["sha256"]):
        changed = [*(key for key in changed if key != "distil"), "--teacher file"]
    for key in ("data", "textures"):
        hashes = [name for name in wanted[key] if name.endswith("sha256")]
        then = found.get(key) or {}
        changed += [f"{key} files" for name in hashes if wanted[key][name] != then.get(name)]
    for key, option in (("vgg", "--vgg"), ("reference_file", "--reference")):
        then, now = found.get(key, wanted[key]), wanted[key]
        if (then and then["sha256"]) != (now and now["sha256"]):
            changed.append(f"{option} file")
    if changed:
        raise RunError(
            f"{run_dir.path} was trained with other {', '.join(sorted(set(changed)))}. Resume with the same options "
            "and files, or train into another folder."
        )
    found["commands"] = [*found["commands"], command]
    return found


def _load_inputs(
    request: TrainRequest, settings: TrainSettings, split: DataSplit, teacher: Teacher | None, reporter: Reporter
) -> TrainInputs:
    """Read all images, and say what is left out."""
    contract = settings.contract
    images = GoodImages(split.training, contract)
    if split.calibration:
        GoodImages(split.calibration, contract, memory_bytes=0)  # a damaged one is better found now than at export
    vgg: VGGFeatures | None = None
    if request.vgg is not None:
        vgg = load_vgg(request.vgg).to(settings.device)
    else:
        reporter.say("no --vgg file: the perceptual loss (L_per) is left out")
    return TrainInputs(
        images=images,
        image_names=_names(split.root, split.training),
        textures=_load_textures(request, images, reporter),
        vgg=vgg,
        reference=_load_reference(request.reference, contract),
        reference_name=str(request.reference) if request.reference is not None else None,
        teacher=load_teacher(teacher, settings.device) if teacher is not None else None,
    )


def _announce_teacher(teacher: Teacher, document: dict[str, Any], reporter: Reporter) -> None:
    """Say who teaches, and where it may have seen what this run keeps for calibration."""
    reporter.say(f"teacher: {teacher.path.parent}, preset {teacher.preset}, width {teacher.width}")
    if teacher.training_sha256 != document["data"]["training_sha256"]:
        reporter.say(
            "the teacher was trained on other images, or it is not known on which: if images that this run holds out "
            "for calibration were among them, the thresholds promise a little too much"
        )


def _load_textures(request: TrainRequest, images: GoodImages, reporter: Reporter) -> TextureImages:
    if request.textures is not None:
        return load_textures(list_textures(request.textures))
    reporter.say("no --textures folder: defects are drawn from other crops of the data itself, strongly altered")
    return textures_from_data(images)


def _load_reference(path: Path | None, contract: InputContract) -> GoodImages | None:
    if path is None:
        return None
    try:
        return GoodImages([path], contract)
    except DataError as error:
        raise DataError(f"--reference: {error}") from error


def _names(root: Path, paths: Sequence[Path]) -> tuple[str, ...]:
    return tuple(path.relative_to(root).as_posix() for path in paths)
