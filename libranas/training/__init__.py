"""Final training: recipes as data, one loop for a laptop and a cluster, numbers to trust, exports.

:func:`libranas.training.workflow.train_and_test` trains a network of a search space;
:class:`libranas.training.loop.Training` any network.
"""
