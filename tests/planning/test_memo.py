"""What was decided about a picture is decided once: for the same bytes and the same question."""

import shutil

import pytest

from tilepipe.cache.digests import recall_digest
from tilepipe.errors import UncertainPsfError
from tilepipe.execution.runnable import plan as make_plan
from tilepipe.planning.memo import Memo, memo_key, recall, remember
from tilepipe.psf.model import PSF
from tilepipe.psf.shapes import gaussian
from tilepipe.settings import Settings
from tilepipe.testing.scenes import BlurredScene, Scene, write_scene

BLUR = gaussian(1.5)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A cache after a run, with the picture and the plan of that run."""
    folder = tmp_path_factory.mktemp("ran")
    write_scene(folder / "photo.tif", BlurredScene(Scene(300, 260, seed=1), BLUR, 0.005))
    plan = make_plan(folder / "photo.tif", folder / "out.tif", psf=BLUR, cache=str(folder / "c"))
    plan.run()
    return folder, plan


def notes_of(picture, psf, cache, **settings):
    notes = []
    plan = make_plan(picture, psf=psf, cache=str(cache), on_event=lambda note: notes.append(note.text), **settings)
    return plan, any("as for the run before" in note for note in notes)


def test_the_same_question_gets_the_same_recipe_without_measuring(ran):
    folder, first = ran
    again, recalled = notes_of(folder / "photo.tif", BLUR, folder / "c", memory="2GB", jobs=1)
    assert recalled
    assert again.tuning == first.tuning
    assert again.recipe.parameters == first.recipe.parameters
    assert again.psf.digest == first.psf.digest


@pytest.mark.parametrize("other", [{"priority": 0.5}, {"halo": 48}, {"tile": 96}, {"quality": "fast"}])
def test_another_question_is_answered_anew(ran, other):
    folder, _ = ran
    assert not notes_of(folder / "photo.tif", BLUR, folder / "c", **other)[1]


def test_another_psf_or_another_way_to_look_is_another_question():
    questions = [
        memo_key(gaussian(1), Settings()),
        memo_key(gaussian(2), Settings()),
        memo_key(None, Settings()),
        memo_key(None, Settings(blur=15)),
        memo_key(None, Settings(window="100,100")),
        memo_key(None, Settings(psf_per_channel=True)),
    ]
    assert len(set(questions)) == len(questions)
    assert memo_key(gaussian(1), Settings(memory="2GB", jobs=3, blur=7)) == questions[0]


def recalled(cache, picture, asked):
    content, _ = recall_digest(cache, picture)
    return None if content is None else recall(cache, content, asked)


def test_other_pixels_are_looked_at_anew(ran, tmp_path):
    folder, plan = ran
    shutil.copytree(folder / "c", tmp_path / "c")
    changed = tmp_path / "photo.tif"
    content = bytearray((folder / "photo.tif").read_bytes())
    content[len(content) // 2] ^= 1
    changed.write_bytes(content)
    assert recalled(tmp_path / "c", changed, plan.analysis.asked) is None


@pytest.mark.parametrize("given", [True, False])
def test_what_took_long_is_kept_before_the_run_begins(tmp_path, given):
    write_scene(tmp_path / "photo.tif", BlurredScene(Scene(300, 260, seed=1), BLUR, 0.005))
    # a search for little blur in a small window: what it finds does not matter, that it is kept does
    asked = {"psf": BLUR} if given else {"psf": None, "blur": 5, "window": "150,130,99", "force": True}
    asked |= {"cache": str(tmp_path / "c"), "tile": 150, "quality": "fast"}
    first = make_plan(tmp_path / "photo.tif", keep=True, **asked)
    again, known = notes_of(tmp_path / "photo.tif", **asked)
    assert known
    assert again.recipe == first.recipe


def test_a_plan_alone_writes_nothing(tmp_path):
    write_scene(tmp_path / "photo.tif", BlurredScene(Scene(300, 260, seed=1), BLUR, 0.005))
    make_plan(tmp_path / "photo.tif", psf=BLUR, cache=str(tmp_path / "c"), tile=150, quality="fast")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"content": 3', None])
def test_a_damaged_answer_is_none(ran, tmp_path, damage):
    folder, plan = ran
    cache = tmp_path / "c"
    shutil.copytree(folder / "c", cache)
    assert recalled(cache, folder / "photo.tif", plan.analysis.asked) is not None
    (file,) = cache.glob("*/memos/*.json")
    if damage is None:
        text = file.read_text().replace('"psf":"', '"psf":"AAAA')
        file.write_text(text)
    else:
        file.write_bytes(damage)
    assert recalled(cache, folder / "photo.tif", plan.analysis.asked) is None


def test_an_uncertain_psf_stays_uncertain(ran):
    folder, plan = ran
    unsure = PSF(gaussian(1).kernel, {"estimated": True, "confidence": 0.2, "nearest": "gaussian"})
    content, _ = recall_digest(folder / "c", folder / "photo.tif")
    remember(folder / "c", content, memo_key(None, Settings()), Memo(unsure, plan.tuning, (), 1.0, None, None))
    with pytest.raises(UncertainPsfError, match=r"0\.20"):
        make_plan(folder / "photo.tif", cache=str(folder / "c"))
    assert make_plan(folder / "photo.tif", cache=str(folder / "c"), force=True).psf.digest == unsure.digest
