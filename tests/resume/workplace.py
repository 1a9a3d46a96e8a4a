"""A picture of a few tiles, chunks and bands, whose decisions are known: a whole run takes a tenth of a second."""

import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

import tifffile

from tilepipe.cache.collection import runs_in
from tilepipe.cache.digests import digest_of
from tilepipe.events import Note, Receipt
from tilepipe.execution.runnable import plan as make_plan
from tilepipe.psf.shapes import gaussian

PSF = gaussian(1.0)

TILES = 10
"""Of the small picture: 5 x 2, with two chunks of the result and two bands of the source."""

PRIORITIES = (0.0, 0.5)

SETTINGS = {"tile": 150, "quality": "fast", "solver": "richardson-lucy", "tolerance": 0.25, "jobs": 1}
"""Of the runs: the solver that takes a third of the time of the default one.  Nothing here depends on what tiles hold;
test_resume.py runs the default solver."""


@dataclass
class Workplace:
    """A folder with a picture and a cache in which nothing but its decisions is known; a run in it is one call."""

    folder: Path
    _stop: threading.Event = field(default_factory=threading.Event)

    def stop(self):
        """Ask the run in progress to stop."""
        self._stop.set()

    @property
    def picture(self):
        return self.folder / "picture.tif"

    @property
    def cache(self):
        return self.folder / "cache"

    @property
    def output(self):
        return self.folder / "out.tif"

    def plan(self, *, picture=None, output=None, **settings):
        settings = {"psf": PSF, "cache": str(self.cache)} | SETTINGS | settings
        return make_plan(picture or self.picture, output or self.output, **settings)

    def run(self, *, on_event=None, overwrite=True, fresh=False, **settings):
        """Plan and run; return what happened."""
        happened = Happened([])

        def listen(event):
            happened.events.append(event)
            if on_event:
                on_event(event)

        plan = self.plan(on_event=listen, **settings)
        self._stop = threading.Event()
        happened.report = plan.run(listen, overwrite=overwrite, fresh=fresh, stop=self._stop)
        return happened

    def edit(self, change):
        """Let `change` work on the pixels of the picture's file."""
        pixels = tifffile.memmap(self.picture)
        change(pixels)
        pixels.flush()

    def run_folder(self, priority=0.0):
        return next(run.folder for run in runs_in(self.cache) if run.recipe.priority == priority)


@dataclass
class Happened:
    """The events of a run and its report."""

    events: list
    report: object = None

    @property
    def computed(self):
        """Tiles that were solved, not taken from anywhere."""
        return {
            event.index
            for event in self.events
            if isinstance(event, Receipt)
            and (event.stage, event.status) == ("restore", "done")
            and not event.taken_over
        }

    @property
    def notes(self):
        return "\n".join(event.text for event in self.events if isinstance(event, Note))


def at(stage, act, number=1):
    """A listener that acts once, when `number` pieces of a stage are done."""
    seen = []

    def listen(event):
        if isinstance(event, Receipt) and event.stage == stage and event.status == "done":
            seen.append(event)
            if len(seen) == number:
                act()

    return listen


def adopted(place):
    """Let the cache know the copied picture: its inode is another one."""
    digest_of(place.cache, place.picture)
    return place


def begun(place):
    """Drop everything but what was decided."""
    (source,) = (path for path in place.cache.iterdir() if (path / "image.json").is_file())
    for path in source.iterdir():
        if path.is_dir() and path.name != "memos":
            shutil.rmtree(path)
    return place


def reference(template, priority=0.0):
    """The bytes of an undisturbed run."""
    return (template.folder / f"{priority}.tif").read_bytes()
