"""A layer between a store and the file system that sees every step which changes something, and can make it go wrong.

A step is what the kernel sees as one call: create, write, truncate, fsync, rename, unlink, mkdir, rmdir or utime. The
layer stands in place of the functions of ``os`` and ``io`` that wszoo and the standard library reach the disk through;
``test_crashes.py`` counts with strace that none goes past it.
"""

from __future__ import annotations

import builtins
import io
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One change of the disk.

    Attributes:
        number: from 1.
        kind: ``create``, ``write``, ``truncate``, ``fsync``, ``fsyncdir``, ``rename``, ``unlink``, ``mkdir``, ``rmdir``
            or ``utime``.
        path: relative to the root.
        other: the new name of a rename.
        offset: of a write; the new size of a truncate.
        data: of a write.
    """

    number: int
    kind: str
    path: str
    other: str = ""
    offset: int = 0
    data: bytes = b""


class Disk:
    """Watches everything below a folder.

    Args:
        root: the folder.
        before: called before each step; may raise OSError in its place, or kill the process.
    """

    def __init__(self, root, before=lambda step: None):
        self.root = os.path.realpath(root)
        self.before = before
        self.log = []
        self._lock = threading.RLock()

    def step(self, kind, path, do, **details):
        """Do something to the disk, unless it is made to fail."""
        name = self._inside(path)
        if name is None:
            return do()
        with self._lock:
            step = Step(len(self.log) + 1, kind, name, **details)
            self.log.append(step)
            try:
                self.before(step)
                return do()
            except OSError:
                self.log[step.number - 1] = Step(step.number, "failed", name)
                raise

    def inside(self, path, dir_fd=None):
        """The path relative to the root."""
        return self._inside(self._full(path, dir_fd))

    def _full(self, path, dir_fd=None):
        if isinstance(path, int):
            return os.readlink(f"/proc/self/fd/{path}")
        path = os.fspath(path)
        return path if dir_fd is None else os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)

    def _inside(self, path):
        path = os.path.abspath(path)
        return os.path.relpath(path, self.root) if path == self.root or path.startswith(self.root + os.sep) else None

    @contextmanager
    def installed(self):
        """Watch while the block runs, all threads."""
        fakes = {name: getattr(self, f"_{name}") for name in ("rename", "unlink", "mkdir", "rmdir", "utime", "fsync")}
        fakes = {
            **fakes,
            "replace": self._rename,
            "remove": self._unlink,
            "open": self._os_open,
            "pwrite": self._pwrite,
        }
        self._true = {name: getattr(os, name) for name in fakes}
        self._true_open = io.open
        for name, fake in fakes.items():
            setattr(os, name, fake)
        io.open = builtins.open = self._open
        try:
            yield self
        finally:
            io.open = builtins.open = self._true_open
            for name, true in self._true.items():
                setattr(os, name, true)

    def _rename(self, src, dst, *, src_dir_fd=None, dst_dir_fd=None):
        true = self._true["replace"]
        other = self.inside(dst, dst_dir_fd)
        return self.step("rename", self._full(src, src_dir_fd), lambda: true(src, dst), other=other or "")

    def _unlink(self, path, *, dir_fd=None):
        return self.step("unlink", self._full(path, dir_fd), lambda: self._true["unlink"](path, dir_fd=dir_fd))

    def _mkdir(self, path, mode=0o777, *, dir_fd=None):
        return self.step("mkdir", self._full(path, dir_fd), lambda: self._true["mkdir"](path, mode, dir_fd=dir_fd))

    def _rmdir(self, path, *, dir_fd=None):
        return self.step("rmdir", self._full(path, dir_fd), lambda: self._true["rmdir"](path, dir_fd=dir_fd))

    def _utime(self, path, *args, **kwargs):
        return self.step("utime", self._full(path), lambda: self._true["utime"](path, *args, **kwargs))

    def _fsync(self, fd):
        fd = fd if isinstance(fd, int) else fd.fileno()
        full = self._full(fd)
        kind = "fsyncdir" if os.path.isdir(full) else "fsync"
        return self.step(kind, full, lambda: self._true["fsync"](fd))

    def _pwrite(self, fd, data, offset):
        def true():
            return self._true["pwrite"](fd, data, offset)

        return self.step("write", self._full(fd).removesuffix(" (deleted)"), true, offset=offset, data=bytes(data))

    def _os_open(self, path, flags, mode=0o777, *, dir_fd=None):
        def true():
            return self._true["open"](path, flags, mode, dir_fd=dir_fd)

        full = self._full(path, dir_fd)
        if flags & os.O_CREAT and not os.path.lexists(full):
            return self.step("create", full, true)
        return true()

    def _open(self, file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, *rest, **options):  # noqa: PLR0917 - as io.open
        writes = set(mode) & set("wxa+")
        if not writes or isinstance(file, int) or self.inside(file) is None:
            return self._true_open(file, mode, buffering, encoding, errors, newline, *rest, **options)
        raw = self._raw(file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        kind = io.BufferedRandom if "+" in mode else io.BufferedWriter
        buffered = kind(raw, raw._blksize if buffering < 0 else buffering)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline)

    def _raw(self, file, mode):
        full = self._full(file)
        if not os.path.lexists(full):
            return self.step("create", full, lambda: _File(self, full, mode))
        if "w" in mode:
            return self.step("truncate", full, lambda: _File(self, full, mode))
        return _File(self, full, mode)


class _File(io.FileIO):
    """A file whose writes are steps. Positions are as FileIO has them; appends are at the end."""

    def __init__(self, disk, path, mode):
        super().__init__(path, mode)
        self._disk, self._path = disk, path

    def write(self, data):
        data = bytes(data)
        at = os.fstat(self.fileno()).st_size if "a" in self.mode else self.tell()
        return self._disk.step("write", self._now(), lambda: io.FileIO.write(self, data), offset=at, data=data)

    def truncate(self, size=None):
        size = self.tell() if size is None else size
        return self._disk.step("truncate", self._now(), lambda: io.FileIO.truncate(self, size), offset=size)

    def _now(self):
        return os.readlink(f"/proc/self/fd/{self.fileno()}").removesuffix(" (deleted)")


def load(root):
    """A folder's content as a tree of :class:`Node`, all of it safe."""
    node = Node(folder={})
    for entry in sorted(Path(root).iterdir()):
        node.folder[entry.name] = load(entry) if entry.is_dir() else Node(data=bytearray(entry.read_bytes()))
    node.sync()
    return node


class Node:
    """A file or folder: what it is now, and what of it is certain to outlive a power failure."""

    def __init__(self, data=None, folder=None):
        self.data, self.folder = data, folder
        self.safe_data, self.safe_folder = b"", {}
        if data is not None:
            self.sync()

    def sync(self):
        """What fsync does: the bytes of a file, or the names in a folder."""
        if self.folder is None:
            self.safe_data = bytes(self.data)
        else:
            self.safe_folder = dict(self.folder)


def replay(tree, steps):
    """Apply steps to a tree."""
    for step in steps:
        _apply(tree, step)


def _apply(tree, step):
    parent, name = _find(tree, step.path)
    if step.kind in {"create", "mkdir"}:
        parent.folder[name] = Node(folder={}) if step.kind == "mkdir" else _empty()
    elif step.kind in {"unlink", "rmdir"}:
        del parent.folder[name]
    elif step.kind == "rename":
        into, new = _find(tree, step.other)
        into.folder[new] = parent.folder.pop(name)
    elif step.kind in {"fsync", "fsyncdir"}:
        (parent.folder[name] if name != "." else parent).sync()
    elif step.kind == "write":
        data = parent.folder[name].data
        data.extend(bytes(max(0, step.offset - len(data))))
        data[step.offset : step.offset + len(step.data)] = step.data
    elif step.kind == "truncate":
        data = parent.folder[name].data
        del data[step.offset :]
        data.extend(bytes(step.offset - len(data)))


def _empty():
    node = Node()
    node.data = bytearray()
    return node


def _find(tree, path):
    *above, name = Path(path).parts or (".",)
    for part in above:
        tree = tree.folder[part]
    return tree, name


def write_out(node, path, choose):
    """Write what a disk has after a power failure.

    Args:
        node: of the folder.
        path: where to; does not exist.
        choose: told ``"names"`` or ``"data"``: the safe state, the present one, or for data zeros in its place.
    """
    path.mkdir()
    for name, child in (node.safe_folder if choose("names") == "safe" else node.folder).items():
        if child.folder is not None:
            write_out(child, path / name, choose)
            continue
        kind = choose("data")
        present = bytes(child.data)
        zeros = present[: len(child.safe_data)] + bytes(max(0, len(present) - len(child.safe_data)))
        lost = zeros if present != child.safe_data else present
        (path / name).write_bytes({"safe": child.safe_data, "present": present, "zeros": lost}[kind])
