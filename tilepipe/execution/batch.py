"""Many images as one command: start-up and compilation are paid once, and a failure stops no other image.

Small images run side by side, one on each core; a large one runs alone, with all cores for its tiles.  They start in
the order of the list.
"""

from __future__ import annotations

import hashlib
import json
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tilepipe.cache.layout import cache_root
from tilepipe.cache.written import is_written, note_written
from tilepipe.errors import InterruptedRunError, OutputError, SettingsError, TilepipeError
from tilepipe.events import Listener, Note, Receipt, StageEnd, StageStart, Status, silent
from tilepipe.execution.runnable import plan as make_plan
from tilepipe.image.readers import open_image
from tilepipe.image.selection import Selection
from tilepipe.image.writers.formats import is_folder_name, output_beside, stem_of, suffix_for
from tilepipe.image.zarr_folder import is_zarr
from tilepipe.planning.analysis import selection_of
from tilepipe.planning.memo import memo_key
from tilepipe.planning.plan import check_output
from tilepipe.planning.shared_psf import estimate_shared_psf
from tilepipe.psf.field import AnyPSF, load_psf
from tilepipe.settings import Settings, resolve
from tilepipe.system.files import is_same_file
from tilepipe.system.memory import available, cores, used_memory
from tilepipe.system.object_store import StoragePath

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Outcome", "OutcomeStatus", "outputs_in", "read_manifest", "run_images"]

SMALL = 2_000_000
"""Largest image that runs beside others, px: it has so few tiles that most cores would be idle."""

SMALL_MEMORY = 300_000_000
"""Memory of a small image, planned and restored on one core, bytes: measured at up to 190 MB."""

HOW_IT_RUNS = (
    "max_pixels",
    "memory",
    "jobs",
    "scheduler",
    "cache",
    "keep_cache",
    "keep_tiles",
    "cache_limit",
    "verify",
    "durable",
    "max_failures",
)
"""Settings that change no pixel of an output."""


OutcomeStatus = Literal["done", "unchanged", "failed", "interrupted", "not started"]


@dataclass(frozen=True)
class Outcome:
    """What became of one image.

    Parameters
    ----------
    image, output : Path
        The input, and the file written or to be written.
    status : str
        "done", "unchanged" (an earlier command wrote it), "failed", "interrupted" or "not started" (the run was
        stopped).
    code : int
        Exit code of a run of this image alone.
    error : str
        Message of a failure.
    facts : dict
        Report of an image that was done, JSON values, see :meth:`tilepipe.execution.pipeline.RunReport.to_dict`.  The
        plan is not kept: it holds the metadata of the image.
    trace : str
        Traceback of an unexpected error.
    """

    image: Path
    output: Path
    status: OutcomeStatus
    code: int = 0
    error: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    trace: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as JSON values; those of the report are included."""
        names = {"image": str(self.image), "output": str(self.output), "status": self.status, "exit": self.code}
        return self.facts | names | ({"error": self.error} if self.error else {})


def read_manifest(path: str | Path) -> list[Path]:
    """Return the images listed in a text file, one per line, relative to its folder; # starts a comment.

    Raises
    ------
    SettingsError
        If the file cannot be read.
    """
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--manifest {path} cannot be read: {error}") from error
    names = [line.strip() for line in lines]
    return [Path(path).parent / name for name in names if name and not name.startswith("#")]


def outputs_in(folder: Path | None, images: Sequence[Path], kind: str | None = None) -> list[Path]:
    """Return the output of each image: its name in `folder`, or ``NAME-sharp`` beside it if there is no folder.

    The extension is that of the format `kind`, by default the image's own if its format can be written, else ``.tif``.

    Raises
    ------
    SettingsError
        If two outputs would have the same name.
    OutputError
        If `folder` is not a folder, is an OME-Zarr, or an output would replace an image of the list.
    """
    if folder is not None and folder.exists() and not folder.is_dir():
        raise OutputError(f"output {folder} is a file; several images need a folder")
    if folder is not None and (is_folder_name(folder) or is_zarr(folder)):
        raise OutputError(f"output {folder} is the name of one picture; several images need a folder")
    outputs = [
        output_beside(image, kind) if folder is None else folder / f"{stem_of(image)}{suffix_for(image, kind)}"
        for image in images
    ]
    first: dict[str, Path] = {}
    for image, output in zip(images, outputs, strict=True):
        other = first.setdefault(str(output.with_name(output.name.lower())), image)
        if other is not image:
            raise SettingsError(
                f"{other} and {image} would both be written to {output}; run them apart, into different folders"
            )
    existing = [output for output in outputs if output.exists()]
    replaced = next(((out, image) for out in existing for image in images if is_same_file(out, image)), None)
    if replaced is not None:
        raise OutputError(f"output {replaced[0]} would replace the input {replaced[1]}; write to another folder")
    return outputs


def run_images(
    images: Sequence[Path],
    folder: Path | None,
    *,
    psf: AnyPSF | str | Path | None = None,
    shared_psf: bool = False,
    config: str | Path | None = None,
    sets: tuple[str, ...] = (),
    on_event: Listener = silent,
    overwrite: bool = False,
    fresh: bool = False,
    stop: threading.Event | None = None,
    client: Client | None = None,
    **flags: Any,
) -> list[Outcome]:
    """Restore several images into a folder.

    The cache of an image is removed once its output is written, unless a setting says otherwise.  An output that an
    earlier call wrote from the same image with the same settings is kept.

    Parameters
    ----------
    images : sequence of Path
        Image files.
    folder : Path or None
        Folder of the outputs, created if its parent exists; None writes ``NAME-sharp`` beside each image.
    psf : PSF, PSFField, str or Path, optional
        The blur of all images; by default it is estimated from each.
    shared_psf : bool
        Estimate one blur for all images, from some of them.
    config, sets, **flags
        Settings, as for :func:`tilepipe.plan`.
    on_event : callable
        Receives the stage "images", with one receipt for each; and the stages of large images.
    overwrite : bool
        Replace existing outputs.
    fresh : bool
        Ignore the cache, and outputs written before.
    stop : threading.Event, optional
        Set it to stop: images in progress are finished or can be resumed, others are not started.
    client : distributed.Client, optional
        Run the tiles on the workers of this dask cluster.

    Returns
    -------
    list of Outcome
        In the order of `images`.

    Raises
    ------
    SettingsError
        If a setting is invalid, no image is given, or two have the same name.
    OutputError
        If the folder cannot be written.
    UncertainPsfError
        If the images do not share a blur.
    """
    if not images:
        raise SettingsError("there is no image to restore: the list is empty")
    resolved = resolve(flags | ({"psf": str(psf)} if isinstance(psf, (str, Path)) else {}), sets, config)
    settings = resolved.settings
    outputs = outputs_in(folder, images, settings.format)
    if settings.save_mask:
        raise SettingsError("save_mask names one file; it cannot be used with several images")
    if resolved.note:
        on_event(Note(resolved.note))
    if resolved.origins["keep_cache"] == "default":
        flags["keep_cache"] = False
    given = load_psf(settings.psf) if settings.psf else None
    if psf is not None and not isinstance(psf, (str, Path)):
        given = psf
    if shared_psf and given is not None:
        raise SettingsError("--psf gives the blur of all images, --shared-psf estimates it: use one of them")
    if folder is not None:
        _create(folder)
    if shared_psf:
        given = estimate_shared_psf(images, settings, on_event)
        on_event(Note(f"psf      {given.made_by['nearest']}, shared; confidence {given.confidence:.2f}"))
    batch = _Batch(
        make=lambda image, output, listen, jobs: make_plan(
            image,
            output,
            psf=given,
            config=config,
            sets=sets,
            on_event=listen,
            keep=True,
            fresh=fresh,
            **(flags | ({} if jobs is None else {"jobs": jobs})),
        ),
        root=cache_root(settings.cache),
        key=_key(given, settings),
        format=settings.format,
        selection=selection_of(settings),
        on_event=on_event,
        overwrite=overwrite,
        fresh=fresh,
        stop=stop or threading.Event(),
        client=client,
    )
    return batch.run(images, outputs, _lanes(settings))


def _create(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be created: {error.strerror or error}") from error


def _key(given: AnyPSF | None, settings: Settings) -> str:
    """Return a digest of everything but the image that determines an output."""
    facts = {name: value for name, value in msgspec.structs.asdict(settings).items() if name not in HOW_IT_RUNS}
    facts |= {"psf": None if given is None else given.digest, "planning": memo_key(given, settings)}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _lanes(settings: Settings) -> int:
    """Return the number of small images that run side by side."""
    allowed = settings.memory_bytes or available() // 2
    return max(1, min(settings.jobs or cores(), (allowed - used_memory()) // SMALL_MEMORY))


@dataclass(frozen=True)
class _Batch:
    """What all images of a batch have in common."""

    make: Callable[[Path, Path, Listener, int | None], Any]
    root: StoragePath
    key: str
    format: str | None
    selection: Selection
    on_event: Listener
    overwrite: bool
    fresh: bool
    stop: threading.Event
    client: Client | None

    def run(self, images: Sequence[Path], outputs: Sequence[Path], lanes: int) -> list[Outcome]:
        """Run all images: up to `lanes` small ones at a time, large ones alone."""
        outcomes: dict[int, Outcome] = {}
        running: dict[Future[Outcome], int] = {}
        self.on_event(StageStart("images", len(images)))

        def collect(most: int) -> None:
            """Wait until at most `most` images are running."""
            while len(running) > most:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    add(running.pop(future), future.result())

        def add(index: int, outcome: Outcome) -> None:
            outcomes[index] = outcome
            if outcome.status == "done":
                self.on_event(Note(f"done     {outcome.image.name}  {outcome.facts['blur']}"))
            status: Status = "failed" if outcome.status == "failed" else "cancelled" if outcome.code else "done"
            self.on_event(Receipt("images", outcome.image.name, status, error=outcome.error))

        with ThreadPoolExecutor(lanes, "tilepipe-image") as pool:
            for index, (image, output) in enumerate(zip(images, outputs, strict=True)):
                if self.stop.is_set():
                    add(index, Outcome(image, output, "not started", InterruptedRunError.exit_code))
                elif not self.fresh and is_written(self.root, image, output, self.key):
                    add(index, Outcome(image, output, "unchanged"))
                elif lanes > 1 and _is_small(image, self.selection):
                    collect(lanes - 1)
                    running[pool.submit(self.one, image, output, silent, 1)] = index
                else:
                    collect(0)
                    add(index, self.one(image, output, self.on_event, None))
            collect(0)
        self.on_event(StageEnd("images"))
        return [outcomes[index] for index in range(len(images))]

    def one(self, image: Path, output: Path, on_event: Listener, jobs: int | None) -> Outcome:
        """Plan and run one image; return a failure instead of raising it."""
        try:
            check_output(output, overwrite=self.overwrite, is_folder=is_folder_name(output, self.format))
            plan = self.make(image, output, on_event, jobs)
            report = plan.run(on_event, overwrite=self.overwrite, fresh=self.fresh, stop=self.stop, client=self.client)
            note_written(self.root, image, output, self.key)
        except InterruptedRunError as error:
            return Outcome(image, output, "interrupted", error.exit_code, str(error))
        except TilepipeError as error:
            return Outcome(image, output, "failed", error.exit_code, " ".join(str(error).split()))
        except Exception as error:  # whatever happens to one image, the others run
            text = f"unexpected {type(error).__name__}: {error} (-v shows the traceback; please report it)"
            return Outcome(image, output, "failed", 1, text, trace=traceback.format_exc())
        return Outcome(image, output, "done", facts=report.to_dict() | {"blur": plan.blur_text})


def _is_small(image: Path, selection: Selection) -> bool:
    """Return whether the header states a small image; False if it cannot be read, which the run will report."""
    try:
        with closing(open_image(image, selection)) as reader:
            return reader.info.height * reader.info.width <= SMALL
    except (TilepipeError, OSError, ValueError):
        return False
