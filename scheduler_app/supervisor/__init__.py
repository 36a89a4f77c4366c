"""Child processes in stages: started in order, kept running, stopped in reverse order."""

import asyncio
import os
import signal
from collections.abc import Coroutine, Mapping

from scheduler_app.supervisor.child import Child, Log, Service, StartError

__all__ = ["Service", "StartError", "Supervisor"]


class Supervisor:
    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        inherited: tuple[int, ...] = (),
        verbose: bool = False,
        as_json: bool = False,
    ) -> None:
        """`inherited` are open files that every child holds as long as it lives.

        `as_json` makes each line of the log an object. What a child writes as one stays as it is.

        Unless `verbose` is set, the early output of a child is shown only when the child does not become ready.
        """
        self.environ = environ
        self.inherited = inherited
        self.verbose = verbose
        self.log = Log(as_json=as_json)
        self.stages: list[list[Child]] = []
        self.stopping = False

    async def start(self, *services: Service) -> None:
        """Starts the services together. Raises StartError when one ends or takes too long before it is ready."""
        await asyncio.gather(*(child.start() for child in self._stage(*services)))

    async def run(self, service: Service) -> None:
        """Runs the service once, to its end. Raises StartError when it fails."""
        (child,) = self._stage(service)
        await child.run()

    async def supervise(self, start: Coroutine[None, None, None]) -> None:
        """Runs until a signal asks to stop. A second Ctrl-C kills the children that still run."""
        self._stop_on_signals()
        try:
            await start
            await self._keep()
        except asyncio.CancelledError:
            self.log.write("backbeat", "stopping; Ctrl-C again kills what still runs")
        finally:
            await self._stop()

    def _stage(self, *services: Service) -> list[Child]:
        """Adds a stage. All later children also hold its lifeline, so the order holds even without the supervisor."""
        lifeline, other_end = os.pipe()
        stage = [
            Child(service, self.log, self.environ, lifeline, self.inherited, verbose=self.verbose)
            for service in services
        ]
        self.inherited += (other_end,)
        self.stages.append(stage)
        return stage

    async def _keep(self) -> None:
        keepers = [child.keeper for stage in self.stages for child in stage if child.keeper]
        done, _ = await asyncio.wait(keepers, return_when=asyncio.FIRST_COMPLETED)
        for keeper in done:
            keeper.result()  # a keeper ends only with an error

    async def _stop(self) -> None:
        self.stopping = True
        for stage in reversed(self.stages):
            await asyncio.gather(*(child.stop() for child in stage))

    def _stop_on_signals(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task

        def stop(number: int) -> None:
            if not self.stopping:
                self.stopping = True
                task.cancel()
            elif number == signal.SIGINT:
                self._kill()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup keeps its meaning
                loop.add_signal_handler(number, stop, number)

    def _kill(self) -> None:
        for stage in self.stages:
            for child in stage:
                child.abandon()
                child.kill()
