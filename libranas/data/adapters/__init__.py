"""One file for each kind of data set."""
