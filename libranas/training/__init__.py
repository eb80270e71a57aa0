"""Final training: recipes as data, one loop for a laptop and a cluster, numbers to trust, exports.

:func:`libranas.training.train_and_test.train_and_test` trains a network of a search space;
:class:`libranas.training.trainer.Training` any network.
"""
