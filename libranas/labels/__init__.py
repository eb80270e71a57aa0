"""Labels (accuracies of networks): from short trainings, a supernet or a table; and how well they agree."""
