"""Many conversations at once, through cache and budget to one backend; needs no torch.

All bookkeeping happens in the caller's thread; only `Backend.answer` runs in others. What a
conversation gets to hear depends on its own words alone, so neither order nor number of workers
changes a result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from papercommons.errors import DataError

from vlm_hv.budget import Budget
from vlm_hv.cache import Cache
from vlm_hv.conversation import Answer, Backend, Failure, Request
from vlm_hv.modes import Conversation, Opinion

IN_A_ROW = 20  # failures after which a run stops


@dataclass
class _Asked:
    """A request, and everyone who waits for its answer."""

    request: Request
    key: str
    waiting: list[tuple[int, Conversation]]
    reserved: tuple[int, int] = (0, 0)


class Scheduler:
    """Puts the questions of many conversations to a backend.

    Args:
        backend: answers.
        cache: answers from before, and where new ones are kept.
        budget: what may be spent.
        batch_size: requests per call of the backend: a local model's batch, 1 for an endpoint.
        workers: calls at a time: 1 for a local model, its concurrency for an endpoint.

    Attributes:
        stopped: why not everything was asked; empty if it was.
        sent: requests put to the backend.
        hits: requests answered by the cache, or by an equal one under way.

    Raises:
        ValueError: batch_size or workers < 1.
    """

    def __init__(
        self,
        backend: Backend,
        cache: Cache,
        budget: Budget,
        *,
        batch_size: int = 1,
        workers: int = 1,
    ) -> None:
        if batch_size < 1 or workers < 1:
            raise ValueError(f"batch_size and workers must be >= 1, got {batch_size}, {workers}")
        self.backend, self.cache, self.budget = backend, cache, budget
        self.batch_size, self.workers = batch_size, workers
        self.stopped, self.sent, self.hits = "", 0, 0
        self._ready: deque[_Asked] = deque()
        self._open: dict[str, _Asked] = {}
        self._done: deque[tuple[int, Opinion]] = deque()
        self._first, self._failed_in_a_row = True, 0

    def run(self, items: Iterable[tuple[int, Conversation]]) -> Iterator[tuple[int, Opinion]]:
        """Give (number, opinion) as conversations end, in whatever order they do.

        The first request runs alone: if it fails, nothing else would succeed, and its answer shows
        what a question costs.

        Args:
            items: conversations with a number each; taken as they are needed.

        Raises:
            DataError: the first request failed.
        """
        source = iter(items)
        pool = ThreadPoolExecutor(self.workers)
        running: dict[Future[list[Answer | Failure]], list[_Asked]] = {}
        try:
            while True:
                self._fill(source)
                yield from self._take_done()
                while (batch := self._next_batch(len(running))) and not self.stopped:
                    requests = [asked.request for asked in batch]
                    running[pool.submit(self.backend.answer, requests)] = batch
                    self.sent += len(batch)
                    self._fill(source)
                    yield from self._take_done()
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    for asked, outcome in zip(running.pop(future), future.result(), strict=True):
                        self._settle(asked, outcome)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _take_done(self) -> Iterator[tuple[int, Opinion]]:
        while self._done:
            yield self._done.popleft()

    def _fill(self, source: Iterator[tuple[int, Conversation]]) -> None:
        """Begin conversations until there is a batch of requests for every worker."""
        while len(self._ready) < self.batch_size * self.workers and not self.stopped:
            item = next(source, None)
            if item is None:
                return
            self._advance(*item, None)

    def _advance(
        self, number: int, conversation: Conversation, outcome: Answer | Failure | None
    ) -> None:
        """Go on with a conversation as far as the cache can answer."""
        while True:
            try:
                request = conversation.send(outcome)  # type: ignore[arg-type]
            except StopIteration as end:
                self._done.append((number, end.value))
                return
            key = self.cache.key(request)
            if key in self._open:
                self._open[key].waiting.append((number, conversation))
                self.hits += 1
                return
            outcome = self.cache.get(key)
            if outcome is None:
                asked = _Asked(request, key, [(number, conversation)])
                self._open[key] = asked
                self._ready.append(asked)
                return
            self.hits += 1

    def _next_batch(self, running: int) -> list[_Asked]:
        """Return requests that may go now; none if workers or budget are used up."""
        if running >= self.workers or (self._first and running):
            return []
        batch: list[_Asked] = []
        while self._ready and len(batch) < (1 if self._first else self.batch_size):
            if not self.budget.fits(self._ready[0].request):
                if not batch and not running:
                    self.stopped = "the next request would pass the ceiling of the budget"
                break
            asked = self._ready.popleft()
            asked.reserved = self.budget.begin(asked.request)
            batch.append(asked)
        return batch

    def _settle(self, asked: _Asked, outcome: Answer | Failure) -> None:
        failed = isinstance(outcome, Failure)
        self.budget.end(asked.reserved, asked.request, None if failed else outcome)  # type: ignore[arg-type]
        if isinstance(outcome, Failure):
            if self._first:
                raise DataError(f"{self.backend.model}: the first request failed: {outcome.reason}")
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= IN_A_ROW:
                self.stopped = f"{IN_A_ROW} requests failed in a row, the last: {outcome.reason}"
        else:
            self._failed_in_a_row = 0
            self.cache.put(asked.key, outcome)
        self._first = False
        del self._open[asked.key]
        for number, conversation in asked.waiting:
            self._advance(number, conversation, outcome)
