"""Writes the last answers while the net computes the next: one thread for each kind of file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from types import TracebackType

from pixelwise.prediction.names import Job
from pixelwise.prediction.writers import Answer, Writer

ROOM = 2  # answers that wait to be written: each holds its image


class Behind:
    """Hands answers to writers and gives back what became of them, in the order in which they came.

    Each kind of file has a thread of its own, so that a writer sees one answer after another and needs no lock, and the
    slowest kind alone sets the pace. Encoders let go of Python's lock. Used with `with`; at its end all is written.
    """

    def __init__(self, writers: Mapping[str, Writer]) -> None:
        self.writers = writers
        self.pools = {kind: ThreadPoolExecutor(1, thread_name_prefix=f"write {kind}") for kind in writers}
        self.waiting: deque[tuple[Job, list[Future[tuple[Path, ...]]]]] = deque()

    def write(self, job: Job, answer: Answer) -> None:
        """Has every writer write the answer, soon."""
        self.waiting.append((job, [self.pools[kind].submit(w.write, answer) for kind, w in self.writers.items()]))

    def failed(self, job: Job, error: BaseException) -> None:
        """Takes its turn for an image without an answer."""
        future: Future[tuple[Path, ...]] = Future()
        future.set_exception(error)
        self.waiting.append((job, [future]))

    def ready(self, *, room: int = ROOM) -> Iterator[tuple[Job, Callable[[], tuple[Path, ...]]]]:
        """(job, what tells its files or raises what went wrong) of what is written; waits until `room` are left."""
        while self.waiting and (len(self.waiting) > room or all(f.done() for f in self.waiting[0][1])):
            wait(self.waiting[0][1])  # here Ctrl-C may come: the image still waits then
            job, futures = self.waiting.popleft()
            yield job, partial(_files, futures)

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        for pool in self.pools.values():
            pool.shutdown(wait=True)


def _files(futures: list[Future[tuple[Path, ...]]]) -> tuple[Path, ...]:
    return tuple(path for future in futures for path in future.result())
