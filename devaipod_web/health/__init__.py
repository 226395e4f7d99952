"""How the control plane's own parts are, on the page Services: health, version, last error, restart; and taking the whole in and out of work.

The room is not called `services`: in every other room that word means its verbs (`services.py`), and a stranger would open it for those.

contract.py   what a service is, and what is asked of it
registry.py   **the one table** of which process looks after which
checks/       one file a service: how it is asked and what a restart of it does
beat.py       each process writes what it found every few seconds, and picks up restarts that were asked for
queries.py    what the page, the API and `devaipod status` show, from those rows alone
verbs/        restart, drain, setup, teardown
"""
