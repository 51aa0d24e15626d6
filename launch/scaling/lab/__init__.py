"""The scaling lab: measures a served model at several device counts, and reports how it scales. See ../README.md."""
