"""``python -m paxos_rsm.cli``: the command, without a script on the path."""

from paxos_rsm.cli import main

if __name__ == "__main__":
    main()
