"""Which pixels of a frame show the specimen: padding, annotation and clipping are found here."""
