"""One image, every form: the store, layers as EROFS files, recipes, kernels and initrds."""
