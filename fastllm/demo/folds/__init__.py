"""The folds of the page and the live view: a folder each, with its module and its script."""
