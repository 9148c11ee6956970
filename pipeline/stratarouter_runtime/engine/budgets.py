"""Budgets: what a tenant may still spend, and what a result is charged to. The counting is the journal's.

A call is made while less than the budget is spent. What is in flight at that moment is not counted, so a budget is
exceeded by at most the calls in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stratarouter_runtime.engine.tokens import guessed, guessed_input
from stratarouter_runtime.errors import BudgetExhaustedError, ExecutionError, UnpricedTargetError
from stratarouter_runtime.journal.grouped import GroupedJournal
from stratarouter_runtime.port_values import BudgetWindow, Spent
from stratarouter_runtime.ports import Clock
from stratarouter_runtime.records import Answer, Execution, Usage
from stratarouter_runtime.route_file import Budget
from stratarouter_runtime.telemetry.metrics import Metrics
from stratarouter_runtime.usage_deltas import NANO, nano


class Budgets:
    """The budgets of the route table.

    Args:
        is_priced: whether the price of a provider's model is known.
        cost_usd: the price of some usage there; None where it is not known.
    """

    def __init__(
        self,
        budgets: Sequence[Budget],
        *,
        journal: GroupedJournal,
        clock: Clock,
        is_priced: Callable[[str, str], bool],
        cost_usd: Callable[[str, str, Usage], float | None],
        metrics: Metrics,
    ) -> None:
        self._budgets = tuple(budgets)
        self._journal = journal
        self._clock = clock
        self._is_priced = is_priced
        self._cost_usd = cost_usd
        self._metrics = metrics

    def update(self, budgets: Sequence[Budget]) -> None:
        """Hold requests against other budgets from now on."""
        self._budgets = tuple(budgets)

    def matching(self, execution: Execution) -> list[Budget]:
        """Those that cover the request."""
        if not self._budgets:
            return []
        tenant, route_id = execution.request.context.tenant, execution.request.decision.route_id
        return [budget for budget in self._budgets if budget.covers(tenant, route_id)]

    async def refusal(self, execution: Execution) -> ExecutionError | None:
        """Why no call may be made for the request now, or None. Raises JournalUnavailableError."""
        for budget in self.matching(execution):
            if budget.usd is not None:
                unpriced = [t for t in execution.targets if not self._is_priced(t.provider, t.model)]
                if unpriced:
                    named = f"{unpriced[0].provider}/{unpriced[0].model}"
                    return UnpricedTargetError(f"budget {budget.name!r} is in US dollars; {named} has no known price")
            spent = await self._journal.spent_one(self._window(budget, execution))
            if _is_exhausted(budget, spent):
                return BudgetExhaustedError(
                    f"budget {budget.name!r} of tenant {execution.request.context.tenant!r} is spent: "
                    f"{spent.nano_usd / NANO:.6g} US dollars, {spent.tokens} tokens within {budget.window_s} s"
                )
        return None

    def charges(self, execution: Execution, answer: Answer | None) -> tuple[tuple[BudgetWindow, Spent], ...]:
        """What ``answer`` is charged to. Where its server counted nothing, what its length lets guess: a budget that
        nothing is charged to would be none.
        """
        budgets = [] if answer is None else self.matching(execution)
        if answer is None or not budgets:
            return ()
        usage, cost_usd = answer.usage, answer.cost_usd
        if usage.input_tokens <= 0 and usage.output_tokens <= 0:
            self._metrics.budget_guesses_total.inc()
            usage = Usage(guessed_input(execution), guessed(answer.text + str(answer.tool_calls or "")))
            cost_usd = None
        if cost_usd is None:
            # Counts that contradict each other, more cached than asked, have no price as they stand.
            plain = Usage(usage.input_tokens, usage.output_tokens)
            cost_usd = self._cost_usd(answer.provider, answer.model, plain)
        spent = Spent(nano(cost_usd) or 0, usage.input_tokens + usage.output_tokens)
        return tuple((self._window(budget, execution), spent) for budget in budgets)

    def _window(self, budget: Budget, execution: Execution) -> BudgetWindow:
        now_s = self._clock.wall_ms() // 1000
        tenant = execution.request.context.tenant
        return BudgetWindow(budget.name, tenant, now_s - now_s % budget.window_s, budget.window_s)


def _is_exhausted(budget: Budget, spent: Spent) -> bool:
    over_money = budget.nano_usd is not None and spent.nano_usd >= budget.nano_usd
    return over_money or (budget.tokens is not None and spent.tokens >= budget.tokens)
