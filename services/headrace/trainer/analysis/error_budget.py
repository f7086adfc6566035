"""α as a budget per day: however many releases a day brings, the false alarms to be expected stay below it.

Each test takes a part of what is left of its purse that day, so a purse is never overdrawn and no count of tests has to
be known before (spending of Lan and DeMets, Biometrika 70, 1983, and of Foster and Stine's alpha-investing, JRSS B 70,
2008, without the rewards). By the union bound the chance of a false alarm among all tests that began on a day is at
most the sum of the purses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from headrace.trainer.analysis.policy import BudgetPolicy

CANARY, INCREMENT = "canary", "increment"


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """What was spent on a day (a number that grows, such as days since 1970)."""

    day: int = 0
    canary_spent: float = 0.0
    increment_spent: float = 0.0

    def allotted(self, day: int, purse: str, policy: BudgetPolicy) -> tuple[float, ErrorBudget]:
        """The α of one more test that begins on `day`, and the budget after it. A clock set back refunds nothing.

        >>> alpha, budget = ErrorBudget().allotted(20_000, CANARY, BudgetPolicy(canary_alpha=0.05, canary_part=0.5))
        >>> round(alpha, 6), round(budget.allotted(20_000, CANARY, BudgetPolicy())[0], 6)
        (0.025, 0.0125)
        """
        today = self if day <= self.day else ErrorBudget(day)
        if purse == CANARY:
            alpha = (policy.canary_alpha - today.canary_spent) * policy.canary_part
            return alpha, replace(today, canary_spent=today.canary_spent + alpha)
        alpha = (policy.increment_alpha - today.increment_spent) * policy.increment_part
        return alpha, replace(today, increment_spent=today.increment_spent + alpha)
