"""The output folder: written aside, then put in place as a whole. Only what hwptq wrote is ever replaced.

`metadata.json` lists the files that hwptq wrote. Where the system lets two folders trade places, the new
output takes the place of the old one in one step. Else (a mount point, the folder one stands in) its files
are moved one by one, by a journal from which the next process finishes the work of a killed one.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .disk import fullest, is_full
from .errors import InputError
from .folder_lock import clear, lock, own, remove

#: The file that says that a folder is the output of hwptq.
METADATA = "metadata.json"
#: How a stored sample becomes the model's input, for hwptq run; only where a preprocess file was given.
PREPROCESS = "preprocess.toml"
GENERATOR = "hwptq"  # its value of the key "generator"
_INSIDE = ".hwptq"  # the folder to work in, inside an output folder that can't be exchanged
_NEW, _JOURNAL = "new", "replaced.json"
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2
_MOST_NAMED = 3  # files, in an error


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """An empty folder, which takes the place of `output` when the block ends without an exception.

    Links are followed. Raises InputError where that can't be done: no permission, a full disk, another
    process that writes there, or an `output` that holds what hwptq didn't write.
    """
    place = Path(os.path.realpath(output))
    with ExitStack() as stack:
        try:
            work = _work_folder(place, stack)
            _refuse_foreign(place, output)
            new = work / _NEW
            new.mkdir()
            yield new
            _put_in_place(new, place, output)
        except BlockingIOError as error:
            raise InputError(f"{output}: another process is writing there; give another --output") from error
        except OSError as error:
            if is_full(error):
                full = fullest([place, Path(tempfile.gettempdir())])
                raise InputError(f"{full}: the disk is full") from error
            if error.filename is None or not _near(Path(error.filename), place):
                raise
            raise InputError(
                f"{output}: can't be written: {error.strerror}; give another --output"
            ) from error


def manifest(folder: Path) -> list[str]:
    """The files of a folder that is complete but for its metadata.json, and that: its list `files`."""
    return sorted({METADATA, *(path.name for path in folder.iterdir())})


def clear_leftovers(output: Path) -> None:
    """Finish or remove what a killed process left of its work on `output`; that of a living one stays."""
    place = Path(os.path.realpath(output))
    _finish(place)
    for folder in (_beside(place), place / _INSIDE):
        clear(folder)


def _work_folder(place: Path, stack: ExitStack) -> Path:
    """The folder to work in, held by this process as `place` itself is."""
    if place.is_dir():
        stack.enter_context(lock(place))
        _finish(place)
        clear(place / _INSIDE)
    if not _stays(place):
        with suppress(PermissionError), _unless_read_only():
            work = _beside(place)
            stack.enter_context(own(work))
            return work
        if not place.is_dir():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
    inside = place / _INSIDE
    stack.enter_context(own(inside, inside / _JOURNAL))
    return inside


@contextmanager
def _unless_read_only() -> Iterator[None]:
    """A read-only file system counts as a lack of permission."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EROFS:
            raise PermissionError(errno.EACCES, error.strerror, error.filename) from error
        raise


def _beside(place: Path) -> Path:
    """The folder to work in beside `place`, in the folder nearest to it that exists."""
    anchor = next((parent for parent in place.parents if parent.exists()), place)
    return anchor / f".{'-'.join(place.relative_to(anchor).parts)}{_INSIDE}"


def _stays(place: Path) -> bool:
    """Whether the folder itself must stay: others have it mounted, stand in it, or own it."""
    if not place.is_dir():
        return False
    owned = place.stat().st_uid == os.geteuid()
    return os.path.ismount(place) or os.path.samefile(place, ".") or not owned


def _written(folder: Path) -> frozenset[str]:
    """The files in a folder that hwptq wrote, as its metadata.json says; none where it holds no output."""
    try:
        data = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        listed = set(data["files"] if data["generator"] == GENERATOR else ())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return frozenset()
    with os.scandir(folder) as entries:
        return frozenset(e.name for e in entries if e.name in listed and not e.is_dir(follow_symlinks=False))


def _foreign(folder: Path) -> list[str]:
    """What lies in a folder and was not written by hwptq."""
    return sorted({*os.listdir(folder)} - _written(folder) - {_INSIDE})


def _refuse_foreign(place: Path, output: Path) -> None:
    if os.path.lexists(place) and not place.is_dir():
        raise InputError(f"{output}: is no folder; give another --output")
    foreign = _foreign(place) if place.is_dir() else []
    if foreign:
        more = f" and {len(foreign) - _MOST_NAMED} more" if len(foreign) > _MOST_NAMED else ""
        named = ", ".join(foreign[:_MOST_NAMED]) + more
        raise InputError(
            f"{output}: holds what hwptq didn't write ({named}); give another --output, or move that away"
        )


def _put_in_place(new: Path, place: Path, output: Path) -> None:
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        new.rename(place)
        return
    foreign = _foreign(place)  # came while the model was compiled
    if clash := set(foreign) & {path.name for path in new.iterdir()}:
        raise InputError(f"{output}: {', '.join(sorted(clash))} appeared there; give another --output")
    if foreign or _stays(place) or not _exchange(new, place):
        _move_files(new, place)


def _exchange(new: Path, place: Path) -> bool:
    """Let two folders trade places in one step; False where the system can't."""
    new.chmod(place.stat().st_mode & 0o7777)
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    here = -100  # AT_FDCWD
    return not rename(here, os.fsencode(new), here, os.fsencode(place), _EXCHANGE)


def _move_files(new: Path, place: Path) -> None:
    """Replace the files of the old output by those of the new one."""
    work = place / _INSIDE
    work.mkdir(exist_ok=True)
    if new.parent != work:  # on another disk, perhaps
        remove(work / _NEW)
        shutil.move(new, work / _NEW)
    gone = _written(place) - {path.name for path in (work / _NEW).iterdir()}
    draft = work / f"{_JOURNAL}.tmp"
    draft.write_text(json.dumps(sorted(gone)), encoding="utf-8")
    draft.rename(work / _JOURNAL)  # from here on the new output is the one that counts
    try:
        _finish(place)
    except KeyboardInterrupt:
        _finish(place)
        raise


def _finish(place: Path) -> None:
    """Do what a journal says, however much of it is done; without one nothing.

    metadata.json goes first and comes last, so that no mix counts as an output.
    """
    work = place / _INSIDE
    try:
        gone = json.loads((work / _JOURNAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    metadata = work / _NEW / METADATA
    if metadata.exists():
        for name in (METADATA, *gone):
            (place / name).unlink(missing_ok=True)
        for path in (work / _NEW).iterdir():
            if path != metadata:
                path.replace(place / path.name)
        metadata.replace(place / METADATA)
    remove(work)


def _near(path: Path, place: Path) -> bool:
    """Whether a path is one of those that lead to the output folder, or of those that we write."""
    return path in (place, *place.parents) or not {place, _beside(place)}.isdisjoint((path, *path.parents))
