"""Starts or resumes a training run from what the command line gives: folders in, a run folder out."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ndp_rt.errors import RunError
from ndp_rt.export.data.images import GoodImages, textures_from_data
from ndp_rt.export.data.resize import choose_size, describe_loss
from ndp_rt.export.data.split import DataSplit, fingerprint_files, split_data
from ndp_rt.export.models.family import Family, TrainData, Training
from ndp_rt.export.models.registry import DEFAULT_FAMILY, FIRST_FAMILY, find_family
from ndp_rt.export.training.loop import Trainer
from ndp_rt.export.training.progress import Reporter
from ndp_rt.export.training.run_folder import RunFolder, check_device, describe_run, open_run, seed_torch
from ndp_rt.export.training.settings import TrainSettings, steps_of_epochs
from ndp_rt.images.groups import AUTOMATIC
from ndp_rt.images.textures import TextureImages, list_textures, load_textures
from ndp_rt.images.white_level import describe_range, find_white_level


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What `ndp-rt train` was asked for.

    `changes` are settings that differ from the preset's, `options` the values of the family's own arguments. `epochs`
    sets the steps from the number of images; None with no steps among the changes: the preset's own epochs or steps.
    """

    data: Path
    run: Path
    preset: str
    family: str = DEFAULT_FAMILY
    changes: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    textures: Path | None = None
    epochs: tuple[int, ...] | None = None
    group_by: str = AUTOMATIC
    page: int | None = None  # of files with several
    white_level: int | None = None  # None: that of the images
    chooses_size: bool = False  # by what the resize takes from the images' structure
    minutes: float | None = None
    resumes: bool = False
    checkpoint_interval_s: float = 30.0
    command: str = "ndp-rt train"


def train_run(request: TrainRequest, reporter: Reporter) -> RunFolder:
    """Train as asked, and return the finished run's folder.

    Raises:
        DataError, ImageFileError: an image, or their number, does not serve.
        DeviceError: PyTorch cannot use the device.
        InputError: an unknown family, a setting out of its range, or a given file that does not serve.
        RunError: a given file is no trained run, the folder holds another run, or none to resume, or the loss is no
            longer a number.
        StorageError: a file could not be written.
        KeyboardInterrupt: Ctrl-C; the run can be resumed.
    """
    family = find_family(request.family)
    settings = family.make_settings(request.preset, request.changes, request.options)
    training = family.make_training(settings, request.options, request.run)
    folder = RunFolder(path=request.run)
    has_run = (folder / "run.json").is_file()
    if has_run and not request.resumes:
        raise RunError(f"{request.run} holds a run already. Give --resume to go on with it, or another folder.")
    check_device(settings.device)
    split = split_data(
        request.data, holdout=settings.holdout, seed=settings.seed, group_by=request.group_by, page=request.page
    )
    for note in split.notes:
        reporter.say(note)
    _check_folder(request, split)
    settings = _with_input(settings, request, split, open_run(folder.path)[1]["input"] if has_run else {}, reporter)
    settings = training.settings = _with_steps(family, settings, request, len(split.training))
    reporter.say(
        f"{len(split.training)} good images to train on, {len(split.calibration)} held out for calibration; "
        f"{family.title}, preset {settings.preset}, {_describe_length(settings)}"
    )
    seed_torch(settings)
    document, data_files = _describe(request, training, split)
    if has_run:
        document = _check_same(folder, document, training, request.command)
        if document["finished"]:
            reporter.say(f"{request.run} has finished already")
            return folder
    data = _load_data(request, settings, split, document["data"]["training_sha256"], reporter)
    training.load(data, reporter.say)
    trainer = Trainer(
        folder,
        training,
        data,
        reporter,
        minutes=request.minutes,
        checkpoint_interval_s=request.checkpoint_interval_s,
    )
    if has_run and folder.has_checkpoint:
        trainer.resume()
        reporter.say(f"resuming at step {trainer.state.step} of phase {trainer.state.phase}")
    folder.create()
    if not has_run:
        folder.write_json("data.json", data_files)
        folder.write_json("calibration.json", [str(path.absolute()) for path in split.calibration])
        folder.write_json("calibration_groups.json", split.calibration_groups)
    folder.write_json("run.json", document)
    folder.write_json("run.json", document | trainer.train())
    return folder


def _with_input(
    settings: TrainSettings, request: TrainRequest, split: DataSplit, then: Mapping[str, Any], reporter: Reporter
) -> TrainSettings:
    """Return the settings with the input that was asked for, or that of the run to resume, or what the images say.

    Args:
        then: the input of the run to resume; empty for a new one.
    """
    level = request.white_level
    if level is None and then:
        level = int(then.get("white_level_16bit", settings.white_level_16bit))
    if level is None:
        level, why = find_white_level(split.values)
        if why:
            reporter.say(f"{why} (--white-level N says another)")
    settings = dataclasses.replace(settings, white_level_16bit=level)
    if not request.chooses_size:
        return settings
    if then:
        return dataclasses.replace(settings, height_px=then["height_px"], width_px=then["width_px"])
    height, width, why = choose_size(split.training, settings.contract, settings.size_step_px)
    reporter.say(f"{why} (--size N says another)")
    return dataclasses.replace(settings, height_px=height, width_px=width)


def _describe_length(settings: TrainSettings) -> str:
    return " + ".join(map(str, settings.phase_steps)) + " steps" if settings.phase_steps else "fitted without training"


def _with_steps(family: Family, settings: TrainSettings, request: TrainRequest, image_count: int) -> TrainSettings:
    """Return the settings with the steps that epochs mean, where epochs decide."""
    epochs = request.epochs
    if epochs is None and "phase_steps" not in request.changes:
        epochs = family.find_epochs(request.preset)
    if epochs is None:
        return settings
    return dataclasses.replace(settings, phase_steps=steps_of_epochs(epochs, image_count, settings.batch_size))


def _describe(request: TrainRequest, training: Training, split: DataSplit) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return run.json and data.json of a new run."""
    training_files, training_sha256 = fingerprint_files(split.root, split.training)
    calibration_files, calibration_sha256 = fingerprint_files(split.root, split.calibration)
    texture_paths = list_textures(request.textures) if request.textures is not None else []
    texture_files, textures_sha256 = fingerprint_files(request.textures or split.root, texture_paths)
    found = describe_range(split.values, training.settings.white_level_16bit)
    facts: dict[str, Any] = {
        "data": {
            "root": str(split.root.absolute()),
            "layout": split.layout,
            "training_image_count": len(training_files),
            "training_sha256": training_sha256,
            "calibration_image_count": len(calibration_files),
            "calibration_sha256": calibration_sha256,
            "calibration_group_count": len(set(split.calibration_groups)),
            "training_digests": list(split.digests),
            "training_range": None if found is None else found.to_json(),
            "has_16_bits": any(one.bits == 16 for one in split.values),
        },
        "textures": {
            "root": str(request.textures.absolute()) if request.textures is not None else None,
            "image_count": len(texture_files),
            "sha256": textures_sha256 if texture_files else None,
        },
        **training.files,
    }
    name = request.data.absolute().name
    document = describe_run(request.family, training.settings, name, request.command, facts)
    return document, {"training": training_files, "calibration": calibration_files, "textures": texture_files}


def _check_same(folder: RunFolder, wanted: dict[str, Any], training: Training, command: str) -> dict[str, Any]:
    """Return the run.json of the run to resume, after checking that it is the one asked for.

    Raises:
        RunError: another family, other settings, or other files than then.
    """
    _, found = open_run(folder.path)
    changed = [] if found.get("family", FIRST_FAMILY) == wanted["family"] else ["--model"]
    for key in ("data", "textures"):
        hashes = [name for name in wanted[key] if name.endswith("sha256")]
        then = found.get(key) or {}
        changed += [f"{key} files" for name in hashes if wanted[key][name] != then.get(name)]
    for key, option in training.file_options.items():
        then, now = found.get(key, wanted[key]), wanted[key]  # absent in a run of the time before it was recorded
        if (then and then["sha256"]) != (now and now["sha256"]):
            changed.append(f"{option} file")
    if not changed:  # else they may follow from that
        changed = [key for key, value in wanted["settings"].items() if found["settings"].get(key) != value]
    if changed:
        raise RunError(
            f"{folder.path} was trained with other {', '.join(sorted(set(changed)))}. Resume with the same options "
            "and files, or train into another folder."
        )
    found["commands"] = [*found["commands"], command]
    return found


def _load_data(
    request: TrainRequest, settings: TrainSettings, split: DataSplit, training_sha256: str, reporter: Reporter
) -> TrainData:
    """Read all images."""
    contract = settings.contract
    training, validation = _keep_validation(split.training, settings.validation_share)
    images = GoodImages(training, contract)
    loss = describe_loss(training, contract)
    if loss:
        reporter.say(loss)
    if split.calibration:
        GoodImages(split.calibration, contract, memory_bytes=0)  # a damaged one is better found now than at export
    return TrainData(
        images=images,
        validation=GoodImages(validation, contract) if validation else None,
        image_names=tuple(path.relative_to(split.root).as_posix() for path in training),
        textures=_load_textures(request, settings, images, reporter),
        training_sha256=training_sha256,
    )


def _keep_validation(paths: Sequence[Path], share: float) -> tuple[Sequence[Path], Sequence[Path]]:
    """Split good images into those to train on and, evenly over them, those for choices after training."""
    if not share:
        return paths, ()
    count = min(max(2, round(share * len(paths))), len(paths) // 2)
    kept = {(2 * number + 1) * len(paths) // (2 * count) for number in range(count)}
    return [path for index, path in enumerate(paths) if index not in kept], [paths[index] for index in sorted(kept)]


def _load_textures(
    request: TrainRequest, settings: TrainSettings, images: GoodImages, reporter: Reporter
) -> TextureImages:
    if request.textures is not None:
        return load_textures(list_textures(request.textures))
    if settings.phase_steps:
        reporter.say("no --textures folder: defects are drawn from other crops of the data itself, strongly altered")
    return textures_from_data(images)


def _check_folder(request: TrainRequest, split: DataSplit) -> None:
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
            f"{request.run} lies in --textures {request.textures}, whose images are all used; the run's own pictures "
            "would be among them. Give another folder."
        )
