"""The append-only file in which a process writes down what it reserved and what it settled.

A record is one line; it is whole when it ends in `;` and a newline, so that the last words of a killed process are not misread:

    R <id> <seconds> <run> <project> <person> <token|0> <pico> <tokens> <requests> <metric:window,…>;
    S <id> <pico> <tokens> <requests> <the call's row as JSON, or ->;

Written with write(2) and no fsync: the kernel has the line when the call returns, so a killed process loses nothing. A
power cut may lose the last seconds (docs/run/budgets.md). A process has a folder of its own below `DEVAIPOD_HOME/budgets/`, holds
the lock of the file `lock` in it as long as it lives, and begins a new numbered file when one is large and counted.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devaipod_web.budgets.amounts import Amount, CallRow, Payer

ROTATE_BYTES = 8 * 1024 * 1024
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class JournalTaken(Exception):
    """Another process holds the lock of this folder: it lives."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """A reservation as the journal has it. `windows` are pairs of metric (its place in METRICS) and window."""

    id: int
    at: float
    payer: Payer
    worst: Amount
    windows: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """A settlement with the reservation that it settles."""

    reserved: Reserved
    actual: Amount
    call: dict[str, Any] | None


@dataclass
class Left:
    """What a journal says that the database has not counted: settlements, and reservations that were never settled."""

    settled: list[Settled] = field(default_factory=list)
    open: list[Reserved] = field(default_factory=list)


def reservation_line(number: int, at: float, payer: Payer, worst: Amount, names: str) -> bytes:
    """The record of a reservation; `names` are its windows as `Binding.names` has them."""
    return (
        f"R {number} {at:.3f} {payer.run_id} {payer.project_id} {payer.person_id} {payer.token_id or 0} "
        f"{worst.pico_usd} {worst.tokens} {worst.requests} {names};\n"
    ).encode()


def settlement_line(number: int, actual: Amount, call: CallRow | None) -> bytes:
    """The record of a settlement."""
    row = "-" if call is None else _encode(call)
    return f"S {number} {actual.pico_usd} {actual.tokens} {actual.requests} {row};\n".encode()


class Lock:
    """The lock on a process's folder: held by the process while it lives, by another while it settles what is left."""

    def __init__(self, folder: Path) -> None:
        """Take it. Raises JournalTaken when another process holds it, FileNotFoundError when the folder is gone."""
        self.folder = folder
        self._file = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise JournalTaken(folder.name) from None

    def release(self) -> None:
        """Let another process have it. What is left in the folder stays."""
        os.close(self._file)

    def remove(self) -> None:
        """Remove the folder and give the lock up."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._file)


class Journal:
    """The journal that this process writes. `number` and `size` say where its end is; `closed`, that others may have it."""

    def __init__(self, root: Path, key: str) -> None:
        """Make the folder `key` below `root` and take its lock. Raises OSError and JournalTaken."""
        folder = root / key
        folder.mkdir(parents=True, mode=0o700)
        self.folder = folder
        self.lock = Lock(folder)
        self.number = self._oldest = 1
        self.size = 0
        self.closed = False
        self._file = self._open()
        self._torn = False

    def append(self, line: bytes) -> None:
        """Add a record. Raises OSError, and then the record does not count."""
        if self._torn:
            line = b"\n" + line
        written = os.write(self._file, line)
        self.size += written
        if written != len(line):
            self._torn = True
            raise OSError(f"Only {written} of {len(line)} bytes fit into {self.folder}.")
        self._torn = False

    def rotate(self, still_open: Iterable[bytes]) -> None:
        """Go on in a new file, which begins with the reservations that are open. Raises OSError and stays in the old one."""
        old, self.number = self._file, self.number + 1
        text = b"".join(still_open)
        try:
            self._file = self._open()
            if os.write(self._file, text) != len(text):
                raise OSError(f"No space for a new file in {self.folder}.")
        except OSError:
            if self._file != old:
                os.close(self._file)
            self._name(self.number).unlink(missing_ok=True)
            self._file, self.number = old, self.number - 1
            raise
        os.close(old)
        self.size, self._torn = len(text), False

    def forget_before(self, number: int) -> None:
        """Remove the files before this one; the database has counted them."""
        for old in range(self._oldest, number):
            self._name(old).unlink(missing_ok=True)
        self._oldest = number

    def close(self) -> None:
        """Stop writing and leave the folder to whoever settles it."""
        self.closed = True
        os.close(self._file)
        self.lock.release()

    def remove(self) -> None:
        """Stop writing and remove the folder: everything in it is counted."""
        os.close(self._file)
        self.lock.remove()

    def _name(self, number: int) -> Path:
        return self.folder / f"{number}.journal"

    def _open(self) -> int:
        flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        return os.open(self._name(self.number), flags, 0o600)


def read(folder: Path, number: int, position: int) -> Left:
    """What stands in a folder's files from `number` on; settlements before byte `position` of that file are counted already.

    Records that are not whole do not count: a reservation whose record is torn was never sent, a settlement whose record is torn leaves
    its reservation open.
    """
    left = Left()
    reserved: dict[int, Reserved] = {}
    done: set[int] = set()
    files = sorted(int(path.stem) for path in folder.glob("*.journal"))
    for found in files:
        if found < number:
            continue
        data = (folder / f"{found}.journal").read_bytes()
        offset = 0
        for line in data.splitlines(keepends=True):
            counted = found == number and offset < position
            offset += len(line)
            if not line.endswith(b";\n"):
                continue
            record = _record(line[:-2].decode(errors="replace"), reserved)
            if isinstance(record, Reserved):
                reserved.setdefault(record.id, record)
            elif record is not None and record.reserved.id not in done:
                done.add(record.reserved.id)
                if not counted:
                    left.settled.append(record)
    left.open = [record for record in reserved.values() if record.id not in done]
    return left


def _record(line: str, reserved: dict[int, Reserved]) -> Reserved | Settled | None:
    try:
        if line.startswith("R "):
            return _reserved(line.split(" "))
        if line.startswith("S "):
            _, number, pico, tokens, requests, row = line.split(" ", 5)
            call = None if row == "-" else json.loads(row)
            actual = Amount(int(pico), int(tokens), int(requests))
            return Settled(reserved[int(number)], actual, call)
    except (ValueError, KeyError):
        return None
    return None


def _reserved(words: list[str]) -> Reserved:
    _, number, at, run, project, person, token, pico, tokens, requests, names = words
    windows = tuple(
        (int(metric), int(window))
        for metric, _, window in (name.partition(":") for name in names.split(",") if name)
    )
    return Reserved(
        int(number),
        float(at),
        Payer(int(run), int(project), int(person), int(token) or None),
        Amount(int(pico), int(tokens), int(requests)),
        windows,
    )
