"""A process that spends: `python -m tests.budgets.worker` with what it is to do as JSON in its first argument.

Its database and home are those of its environment. It prints one line of JSON at its end: what it settled, in pico, and how often it
was refused.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys

#: Costs are whole multiples of it: 10⁻⁸ dollars.
GRAIN = 10_000
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "devaipod_web.settings")


async def spend(
    *, payer: list[int], tasks: int, worst: int, share: float, seed: int, dies_after: int = 0
) -> dict:
    """Run `tasks` agents at once until each is refused. A request costs at random up to `share` of the worst case, which is reserved.

    With `dies_after` the process kills itself after so many settlements, as soon as other requests are open.
    """
    from devaipod_web import db, home
    from devaipod_web.budgets.ledger import Amount, CallRow, OverBudget, Payer, current
    from devaipod_web.budgets.money import usd

    dice = random.Random(seed)
    ledger = current()
    stop = asyncio.Event()
    running = asyncio.create_task(ledger.run(stop))
    who = Payer(*payer)
    settled, refused = [0, 0], 0

    # All begin together, once the parent has seen that each is ready.
    (home.home() / f"ready-{seed}").touch()
    while not (home.home() / "go").exists():
        await asyncio.sleep(0.005)

    async def agent() -> None:
        nonlocal refused
        while True:
            try:
                held = await ledger.reserve(who, Amount(worst, 0))
            except OverBudget:
                refused += 1
                return
            await asyncio.sleep(dice.random() * 0.01)
            cost = int(worst * share * dice.random()) // GRAIN * GRAIN
            row: CallRow = {
                "run_id": who.run_id,
                "provider_kind": "t",
                "model": "m",
                "at": "2026-11-24T12:00:00+00:00",
                "status": 200,
                "provider_id": None,
                "cost": str(usd(cost)),
            }
            ledger.settle(held, Amount(cost, 0), row)
            settled[0] += cost
            settled[1] += 1
            if dies_after and settled[1] >= dies_after and ledger._open:
                os.kill(os.getpid(), signal.SIGKILL)

    await asyncio.gather(*(agent() for _ in range(tasks)))
    stop.set()
    await running
    await db.close_connections()
    return {"settled": settled[0], "calls": settled[1], "refused": refused}


def main() -> None:
    import django

    django.setup()
    wanted = json.loads(sys.argv[1])
    print(json.dumps(asyncio.run(spend(**wanted))), flush=True)


if __name__ == "__main__":
    main()
