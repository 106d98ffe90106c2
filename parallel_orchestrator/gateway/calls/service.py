"""The way of one call: from a caller's request to an answer that is whole and on disk.

    Service.ask
      the answer is in the ledger ............ it is delivered from there, and nothing is bought
      the same call is under way ............. its outcome is awaited
      otherwise .............................. Service._buy, in a task that no caller can cancel
        Service._try, until there is an answer
          PromptCache.turn ................... wait while another call buys the same prompt's beginning
          Limiter.turn ....................... wait for the endpoint's rate limit and for a place in flight
          Admission.check .................... may this call be made now? credential, caps, disk
          Ledger.write_intent, on_disk ....... before a byte goes out
          Endpoint.ask ....................... one try
          Ledger.write_answer, on_disk ....... before a caller hears of it
        after a fault, wait: everybody (429) or this call (else); then try again, as long as patience lasts

All of it runs in one event loop: a step without `await` is never interrupted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Any

from parallel_orchestrator.gateway.calls.admission import Admission
from parallel_orchestrator.gateway.calls.ledger import Intent, Retry, Stored
from parallel_orchestrator.gateway.calls.messages import Answered, CallFault, ModelRequest, Outcome, Refusal, Scope
from parallel_orchestrator.gateway.calls.run import Delivery, Purchase, ServedRun
from parallel_orchestrator.gateway.calls.runs import Runs
from parallel_orchestrator.gateway.http import errors
from parallel_orchestrator.gateway.http.errors import GatewayError
from parallel_orchestrator.gateway.pacing.inactivity import InactivityTimeout
from parallel_orchestrator.gateway.pacing.limiter import MAX_HOLD_S, Limiter, backoff
from parallel_orchestrator.gateway.pacing.prompt_cache import OnFirstEvent, PromptCache
from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.system import redact

log = logging.getLogger(__name__)

MOST_MISFORMATS = 3
"""Answers to one call in a row that break the API's format in the same way; then the server speaks another one."""


class Service:
    """Answers asks for all open runs. `limiter` is the live endpoint's; replays have their own."""

    def __init__(
        self,
        *,
        limiter: Limiter,
        patience_s: float,
        max_cost_usd: float | None = None,
        spent_before_usd: Mapping[str, float] | None = None,
    ) -> None:
        self.limiter = limiter
        self.inactivity = InactivityTimeout(patience_s, lambda: limiter.held_until)
        self.prompt_cache = PromptCache()
        self.runs = Runs(patience_s, spent_before_usd)
        self.admission = Admission(self.runs, max_cost_usd)

    async def ask(self, run_id: str, request: ModelRequest) -> Delivery:
        """The answer to `request`, which is on disk by then. Raises GatewayError.

        A caller that goes away is of no consequence: the call goes on, and the next request finds it.
        """
        run = await self.runs.opened(run_id)
        stored = run.ledger.find(request.key, request.hash)
        if stored is None:
            purchase = run.purchases.get((request.key, request.hash)) or self._begin(run, request)
            return await asyncio.shield(purchase.task)
        await run.ledger.on_disk(stored)
        return run.delivery(stored)

    async def watch_inactivity(self) -> None:
        """Run for ever: end all calls at each inactivity timeout of the endpoint."""
        while True:
            vain = await self.inactivity.wait()
            for purchase in self.runs.live_purchases():
                last = f" (the last try: {purchase.last_fault})" if purchase.last_fault else ""
                log.warning("%s: %s%s, giving up", purchase.request.key.task, vain, last)
                purchase.end(errors.endpoint_silent(vain + last))
            self.inactivity.start()

    def status(self) -> dict[str, Any]:
        """Money, load and waiting, of the gateway and of each run, for the live view."""
        return {
            "spent_usd": self.runs.spent_usd(),
            "max_cost_usd": self.admission.max_cost_usd,
            "in_flight": self.limiter.in_flight,
            "waiting": self.limiter.waiting,
            "limit": int(self.limiter.limit),
            "held_until_s": max(0.0, self.limiter.held_until - time.monotonic()),
            "stopping": self.runs.stopping,
            "runs": {run.id: run.status() for run in self.runs},
        }

    def _begin(self, run: ServedRun, request: ModelRequest) -> Purchase:
        if not request.phase_turn:
            earlier = run.ledger.count(request.key.task, request.key.attempt)
            under_way = sum(p.request.key == request.key for p in run.purchases.values())
            request = replace(request, phase_turn=earlier + under_way + 1)
        if not self.runs.live_purchases():
            self.inactivity.start()
        purchase = run.purchases[request.key, request.hash] = Purchase(request)
        purchase.task = asyncio.create_task(self._buy(run, purchase))
        # Its callers may be gone when it fails; without this, asyncio reports an unread exception.
        purchase.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return purchase

    async def _buy(self, run: ServedRun, purchase: Purchase) -> Delivery:
        """Try until there is an answer. Raises GatewayError when there will be none."""
        purchase.running = True
        try:
            self._check(run, purchase)
            call = run.ledger.new_call()
            for number in count(1):
                outcome = await self._try(run, purchase, call, number)
                if isinstance(outcome, Delivery):
                    return outcome
                self._check(run, purchase)
                await asyncio.sleep(outcome)
            raise AssertionError("count never ends")
        except asyncio.CancelledError:
            raise purchase.ended_by or errors.stopping() from None
        except CannotGoOn as error:
            raise self._cannot_write(run, error) from error
        except GatewayError:
            raise
        except Exception as error:
            log.exception("%s: unexpected error", purchase.request.key.task)
            return await self._after_fault(run, purchase, error)
        finally:
            del run.purchases[purchase.request.key, purchase.request.hash]

    async def _try(self, run: ServedRun, purchase: Purchase, call: int, number: int) -> Delivery | float:
        """Makes one try. Returns the seconds to wait when it failed. Raises GatewayError when no retry can help."""
        request, purchase.tries = purchase.request, number
        prefix = "" if run.endpoint.free else request.prefix
        async with self.prompt_cache.turn(prefix) as on_first_event, run.limiter.turn(retry=number > 1) as started:
            self._check(run, purchase)
            intent = run.ledger.write_intent(call, request, number, run.bound(request))
            outcome = await self._at_endpoint(run, purchase, intent, on_first_event)
            match outcome:
                case Answered():
                    stored = self._store(run, purchase, intent, outcome)  # before anything else is made of it
                    on_first_event({"message": {"usage": outcome.usage}})
                    run.limiter.succeeded()
                    self._note(run, purchase, None)
                    await run.ledger.on_disk(stored)
                    return Delivery(stored, outcome.events, outcome.message)
                case Refusal():
                    run.ledger.write_refusal(intent, outcome)
                    raise self._refused(run, request.model, outcome)
                case CallFault():
                    self._note(run, purchase, outcome)
                    return self._failed(run, purchase, intent, outcome, started)

    def _failed(self, run: ServedRun, purchase: Purchase, intent: Intent, fault: CallFault, started: float) -> float:
        """Records a failed try. Returns the seconds until the next. Raises GatewayError when no retry can help."""
        number = purchase.tries
        held, delay = self._slow_down(run, fault, started), self._delay(fault, number)
        retry = Retry(number, max(held, delay), self.inactivity.left_s())
        run.ledger.write_fault(intent, fault, retry)
        log.info(
            "%s, try %d failed: %s, %s; next try in %.1f s, giving up in %.0f s",
            *(purchase.request.key.task, number, fault.kind, fault.detail, retry.next_s, retry.gives_up_s),
        )
        if purchase.broke_format(fault.misformat) >= MOST_MISFORMATS:
            raise self._close_endpoint(errors.misformatted(run.endpoint.name, fault.detail))
        return delay

    async def _at_endpoint(
        self, run: ServedRun, purchase: Purchase, intent: Intent, on_first_event: OnFirstEvent
    ) -> Outcome:
        purchase.at_endpoint, sent = True, False
        try:
            await run.ledger.on_disk()
            run.ledger.require_trust()  # if it failed meanwhile, what this would buy could not be written down
            sent = True
            return await run.endpoint.ask(purchase.request, on_first_event)
        except asyncio.CancelledError:
            run.ledger.write_fault(
                intent, CallFault("silent", ambiguous=sent, detail="given up while it was under way")
            )
            raise
        except CannotGoOn:
            raise
        except Exception as error:
            detail = redact.foreign(f"{type(error).__name__}: {error}")[:300]
            run.ledger.write_fault(intent, CallFault("internal", ambiguous=sent, detail=detail))
            raise
        finally:
            purchase.at_endpoint = False

    def _store(self, run: ServedRun, purchase: Purchase, intent: Intent, answer: Answered) -> Stored:
        price = _price(run, answer, purchase.request.model)
        usd, recorded_usd = (0.0, price) if run.endpoint.free else (price, None)
        waited = time.monotonic() - purchase.began - answer.endpoint_s
        return run.ledger.write_answer(intent, answer, usd, recorded_usd, max(0.0, waited))

    def _check(self, run: ServedRun, purchase: Purchase) -> None:
        if purchase.ended_by:
            raise purchase.ended_by
        self.admission.check(run, purchase.request)

    def _note(self, run: ServedRun, purchase: Purchase, fault: CallFault | None) -> None:
        """Report to the inactivity timeout how a try ended. Replays do not count."""
        if run.endpoint.free:
            return
        if fault is None:
            self.inactivity.on_answer()
        else:
            purchase.last_fault = f"{fault.kind}, {fault.detail}"
            self.inactivity.on_failure()

    def _slow_down(self, run: ServedRun, fault: CallFault, started: float) -> float:
        """Make fewer calls where the endpoint asks for it; the seconds for which it holds all calls back."""
        if fault.holds_back:
            return run.limiter.hold_back(started, fault.retry_after_s)
        if fault.overload:
            run.limiter.overloaded(started)
        return 0.0

    def _delay(self, fault: CallFault, number: int) -> float:
        """Seconds before this call's next try. After a rate limit the shared gate makes it wait, with all others."""
        if fault.holds_back:
            return 0.0
        delay = backoff(number) if fault.retry_after_s is None else min(fault.retry_after_s, MAX_HOLD_S)
        if fault.responded:
            self.inactivity.pause(delay)
        return delay

    def _refused(self, run: ServedRun, model: str, refusal: Refusal) -> GatewayError:
        """The error for a refused call. When it concerns others too, no other such call goes out."""
        match refusal.scope:
            case Scope.CALLER:
                return errors.refused(refusal)
            case Scope.MODEL_UNKNOWN:
                why = run.unknown_models[model] = errors.model_unknown(model, refusal)
                log.error("%s", why)
                run.end_waiting(why, model)
                return why
            case Scope.KEY_REFUSED:
                return self._close_endpoint(errors.key_refused(refusal))
            case Scope.CREDIT_EXHAUSTED:
                return self._close_endpoint(errors.credit_exhausted(refusal))
            case Scope.UNUSABLE:
                return self._close_endpoint(errors.unusable(run.endpoint.name, refusal.detail))

    def _close_endpoint(self, why: GatewayError) -> GatewayError:
        """Let no other live call go out, for the reason that is returned."""
        log.error("%s", why)
        self.admission.refused = why
        for run in self.runs:
            if not run.endpoint.free:
                run.end_waiting(why)
        return why

    async def _after_fault(self, run: ServedRun, purchase: Purchase, error: Exception) -> Delivery:
        """A fault of this program met a call: deliver its answer if it was written, and buy nothing more for the run.

        Raises GatewayError when there is no answer.
        """
        run.halted, purchase.running = errors.gateway_fault(error), False  # this one is not to be cancelled
        run.end_waiting(run.halted)
        stored = run.ledger.find(purchase.request.key, purchase.request.hash)
        if stored is None:
            raise run.halted from error
        await run.ledger.on_disk(stored)
        return run.delivery(stored)

    def _cannot_write(self, run: ServedRun, error: CannotGoOn) -> GatewayError:
        """The ledger refused a record: nothing more is bought for this run."""
        log.error("%s", error)
        run.halted = errors.cannot_write(str(error))
        run.end_waiting(run.halted)
        return run.halted


def _price(run: ServedRun, answer: Answered, asked: str) -> float | None:
    """The answer's cost in USD; None when it is unknown. A failure here never loses the answer."""
    try:
        price = run.prices.cost(answer.model, answer.usage)
        return run.prices.cost(asked, answer.usage) if price is None else price
    except Exception:
        log.exception("an answer of %s cannot be priced", answer.model)
        return None
