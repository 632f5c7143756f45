"""The scripts that are subcommands: a wheel carries them in this folder, a checkout in ``agents`` and ``scripts``.

Each is one file with an ``Args`` and a ``main``, the same whether it is run as a script or as a subcommand.
"""

from pathlib import Path

_CHECKOUT = Path(__file__).parents[3]
if not Path(__file__).with_name("ppo.py").exists():
    # As modules, since functions that are sent to other processes are found there by the name of their module.
    __path__ += [str(_CHECKOUT / folder) for folder in ("agents", "scripts")]
