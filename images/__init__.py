"""Images in all their forms: the store, layers as EROFS files, disks, transfers, recipes, kernels and initrds."""
