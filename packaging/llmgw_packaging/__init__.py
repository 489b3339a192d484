"""Builds the installers: the same sources and the same time (SOURCE_DATE_EPOCH) give the same bytes."""
