"""Writes the last answers while the net computes the next: one thread for each kind of file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pixelwise.data.writer import Resumable
from pixelwise.prediction.names import Job
from pixelwise.prediction.writers import Answer, LargeAnswer, Writer

ROOM = 2  # answers that wait to be written: each holds its image
Written = tuple[tuple[Path, ...], dict[str, Any]]  # files, and what the writer remembers


@dataclass(frozen=True)
class Turn:
    """One image on its way to its files.

    known  whether an earlier run had written it
    """

    job: Job
    answer: Answer | LargeAnswer | None
    kinds: dict[str, Future[Written]]
    known: bool = False

    def files(self) -> tuple[Path, ...]:
        """What was written. Raises what went wrong."""
        return tuple(path for future in self.kinds.values() for path in future.result()[0])

    def notes(self) -> dict[str, dict[str, Any]]:
        """What each writer remembers; of those that resume."""
        return {kind: future.result()[1] for kind, future in self.kinds.items()}

    def close(self) -> None:
        """Lets go of what a large answer holds."""
        if self.answer is not None:
            self.answer.close()


class Behind:
    """Hands answers to writers and gives back what became of them, in the order in which they came.

    Each kind of file has a thread of its own, so that a writer sees one answer after another and needs no lock, and the
    slowest kind alone sets the pace. Encoders let go of Python's lock. Used with `with`; at its end all is written.
    """

    def __init__(self, writers: Mapping[str, Writer]) -> None:
        self.writers = writers
        self.pools = {kind: ThreadPoolExecutor(1, thread_name_prefix=f"write {kind}") for kind in writers}
        self.waiting: deque[Turn] = deque()

    def write(self, job: Job, answer: Answer | LargeAnswer) -> None:
        """Has every writer write the answer, soon."""
        kinds = {kind: self.pools[kind].submit(_write, writer, answer) for kind, writer in self.writers.items()}
        self.waiting.append(Turn(job, answer, kinds))

    def recall(self, job: Job, files: tuple[Path, ...], notes: Mapping[str, Any]) -> None:
        """Has every writer remember what an earlier run wrote."""
        kinds = {kind: self.pools[kind].submit(_recall, w, notes[kind]) for kind, w in self.writers.items()}
        kinds["files"] = Future()
        kinds["files"].set_result((files, {}))
        self.waiting.append(Turn(job, None, kinds, known=True))

    def failed(self, job: Job, error: BaseException) -> None:
        """Takes its turn for an image without an answer."""
        future: Future[Written] = Future()
        future.set_exception(error)
        self.waiting.append(Turn(job, None, {"": future}))

    def ready(self, *, room: int = ROOM) -> Iterator[Turn]:
        """Those that are written; waits until `room` are left."""
        while self.waiting and (len(self.waiting) > room or all(f.done() for f in self.waiting[0].kinds.values())):
            wait(self.waiting[0].kinds.values())  # here Ctrl-C may come: the image still waits then
            yield self.waiting.popleft()

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        for pool in self.pools.values():
            pool.shutdown(wait=True)
        for turn in self.waiting:  # nobody asks for them any more
            turn.close()


def _write(writer: Writer, answer: Answer | LargeAnswer) -> Written:
    return writer.write(answer), writer.note() if isinstance(writer, Resumable) else {}


def _recall(writer: Writer, note: Mapping[str, Any]) -> Written:
    assert isinstance(writer, Resumable), "a run with a writer that remembers nothing computes its images again"
    writer.recall(note)
    return (), {}
