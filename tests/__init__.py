"""The tests, laid out as steps/ is."""
