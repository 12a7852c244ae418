"""Layout of the networks, see docs/decisions/0005-members-share-trunks.md."""

FOLD = 2  # edge of a trunk pixel, working pixels
STRIDE = 4 * FOLD  # working pixels; sides of an input are multiples of it: two poolings after FOLD
HIDDEN = 16  # channels of a head
CONTEXT = 3  # residual blocks at the coarsest level
LEVELS = (1, 2, 3)  # channels of the trunk's levels, in units of the finest level
