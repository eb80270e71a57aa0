"""Training: recipes as data, one loop for a laptop and a cluster, and a short one for many small networks.

:class:`libranas.training.trainer.Training` trains any network,
:func:`libranas.training.train_and_test.train_and_test` one of a search space,
:class:`libranas.training.in_memory.ShortTraining` one of many that give labels.
"""
