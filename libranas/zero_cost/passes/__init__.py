"""The passes: every way of running the network, each shared by all proxies that need it.

To add one: write its record in :mod:`libranas.zero_cost.proxy` and a ``PassRun`` in a new file here, and list that in
:mod:`libranas.zero_cost.passes.runner`.
"""
